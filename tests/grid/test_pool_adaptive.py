"""Adaptive and pyramid pooling: every backend against the reference, and the reference against
PyTorch and by hand."""

from functools import partial

import pytest
import torch
from contract import (
    DTYPES,
    Case,
    gradient,
    hold,
    laid_out,
    opcheck,
    operand,
    run,
    run_pytorch,
    servers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout
from pydl.contract.pool_adaptive import longest

# One table for averages and maxima. `output_size` where it does not divide the map, or the windows
# of pool serve.
CASES = (
    (2, Case("VGG's seven by seven from thirteen", (2, 5, 13, 13), {"output_size": 7})),
    (2, Case("odd bins that overlap", (1, 3, 11, 12), {"output_size": (4, 5)})),
    (2, Case("more bins than elements", (1, 3, 3, 5), {"output_size": (7, 4)})),
    (2, Case("global", (2, 6, 7, 7), {"output_size": 1})),
    (2, Case("equal windows", (2, 4, 8, 12), {"output_size": (4, 3)})),
    (2, Case("the map itself", (2, 4, 5, 6), {"output_size": (None, None)})),
    (2, Case("one axis left as it is", (2, 4, 5, 6), {"output_size": (None, 4)})),
    (2, Case("bins of more elements than a byte counts", (1, 2, 37, 39), {"output_size": 2})),
    (2, Case("wide enough for every vector length", (1, 2, 5, 83), {"output_size": (2, 9)})),
    (2, Case("ties go to the first", (1, 4, 9, 10), {"output_size": 4}, values="ties")),
    (2, Case("NaN wins and stays in its bins", (1, 4, 9, 10), {"output_size": 4}, values="nan")),
    (2, Case("all -inf", (1, 2, 7, 7), {"output_size": 3}, values="minus infinity")),
    (
        2,
        Case(
            "all -inf, in bins large enough for several threads",
            (1, 2, 13, 13),
            {"output_size": 2},
            values="minus infinity",
        ),
    ),
    (2, Case("channels last", (2, 9, 9, 8), {"output_size": (4, 5)}, "channels_last")),
    (2, Case("channels last with NaN", (2, 70, 7, 8), {"output_size": 3}, "channels_last", "nan")),
    (
        2,
        Case("channels last with ties", (1, 17, 7, 8), {"output_size": 5}, "channels_last", "ties"),
    ),
    (2, Case("whole vectors of channels", (2, 24, 13, 11), {"output_size": 7}, "channels_last")),
    (2, Case("vectors with ties", (1, 40, 7, 8), {"output_size": 3}, "channels_last", "ties")),
    (2, Case("a part of a block", (53, 72, 8, 8), {"output_size": 3}, "channels_last")),
    (2, Case("many planes of few places", (3, 67, 3, 2), {"output_size": 2})),
    # CUDA C++: 132 blocks that take sixteen planes at a time.
    (2, Case("more planes a thread", (3, 705, 3, 4), {"output_size": 2})),
    (2, Case("more channels a thread", (66, 32, 3, 4), {"output_size": 2}, "channels_last")),
    (2, Case("more places than shared memory has room for", (1, 2, 44, 40), {"output_size": 7})),
    (2, Case("a line longer than shared memory", (1, 1, 5, 400), {"output_size": (2, 3)})),
    (2, Case("more places than any shared memory has", (1, 1, 91, 90), {"output_size": 7})),
    (2, Case("a slice of a larger map", (2, 3, 9, 8), {"output_size": 5}, "sliced")),
    (2, Case("an odd storage offset", (1, 3, 9, 8), {"output_size": 5}, "offset")),
    (2, Case("an expanded gradient", (2, 3, 9, 8), {"output_size": 5}, "expanded")),
    (2, Case("an empty batch", (0, 3, 9, 8), {"output_size": 5})),
    (2, Case("unbatched", (3, 9, 8), {"output_size": 5})),
    (1, Case("one axis", (2, 5, 19), {"output_size": 4})),
    (1, Case("one axis unbatched", (5, 19), {"output_size": 8})),
    (3, Case("three axes", (1, 3, 5, 8, 9), {"output_size": (2, 3, 4)})),
    (3, Case("more bins than elements of depth", (1, 3, 1, 6, 7), {"output_size": (2, 3, 4)})),
    (3, Case("three axes channels last", (2, 5, 5, 6, 7), {"output_size": 3}, "channels_last")),
)
ROWS = [(f"adaptive_{kind}_pool{axes}d", case) for kind in ("avg", "max") for axes, case in CASES]
POOLS = pytest.mark.parametrize("name, case", ROWS, ids=lambda value: str(value))


def compare(ours, theirs, case, dtype, device, backend):
    """Ours, PyTorch's and the reference's results and gradients, held to each other."""
    x = operand(case, dtype, device)
    three = (
        run(lambda x: ours(x, backend), [x], lambda y: gradient(case, y)),
        run_pytorch(theirs, [x], lambda y: gradient(case, y)),
        run(lambda x: ours(x, "reference"), [x.double()], lambda y: gradient(case, y)),
    )
    for what, *each in zip(("y", "grad_x"), *three, strict=True):
        hold(*each, what)
    y = ours(x, backend)
    assert torch.equal(y.nan_to_num(), three[0][0].nan_to_num()), "inference and training differ"
    return x, y


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@POOLS
@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_against_reference(server, name, case, dtype):
    backend, device = server
    compare(
        lambda x, backend: getattr(functional, name)(x, **case.arguments, backend=backend),
        lambda x: getattr(torch.nn.functional, name)(x, **case.arguments),
        case,
        dtype,
        device,
        backend,
    )


@POOLS
def test_reference_is_pytorch_in_float64(name, case):
    x = operand(case, torch.float64, "cpu")
    ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
    pairs = zip(
        run(
            lambda x: ours(x, **case.arguments, backend="reference"),
            [x],
            lambda y: gradient(case, y),
        ),
        run(lambda x: theirs(x, **case.arguments), [x], lambda y: gradient(case, y)),
        strict=True,
    )
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    "name, case", [row for row in ROWS if "max" in row[0]], ids=lambda value: str(value)
)
@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_indices_are_pytorchs(server, name, case):
    backend, device = server
    x = operand(case, torch.float32, device)
    y, index = getattr(functional, f"{name}_with_indices")(x, **case.arguments, backend=backend)
    expected, expected_index = getattr(torch.nn.functional, name)(
        x, **case.arguments, return_indices=True
    )
    assert index.dtype == torch.int64 and torch.equal(index, expected_index)
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("view", ["contiguous", "channels_last"])
@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_zeros_are_equal_and_the_last_nan_wins(server, view, dtype):
    """Zeros of either sign, of which the first is the maximum and keeps its sign, NaNs of either
    sign, and what is next to both."""
    backend, device = server
    nan = torch.tensor([0x7FC00001, 0x7FFFFFFF, -1, -0x400000], dtype=torch.int32)
    tiny, infinity = torch.finfo(dtype).tiny, torch.inf
    values = [0.0, -0.0, -tiny, tiny, -infinity, infinity, -1.0, *nan.view(torch.float32).tolist()]
    few = torch.tensor(values)[[0, 1, 0, 1, 0, 1, 2]]
    generator = torch.Generator().manual_seed(1)
    x = torch.cat(
        [
            of[torch.randint(len(of), (2, 24, 7, 9), generator=generator)]
            for of in (torch.tensor(values), few, torch.cat([few, torch.tensor(values)]))
        ],
        1,
    )
    x = laid_out(x.to(dtype), view).to(device)
    y, index = functional.adaptive_max_pool2d_with_indices(x, (3, 4), backend=backend)
    expected, expected_index = torch.nn.functional.adaptive_max_pool2d(
        x.float().cpu(), (3, 4), return_indices=True
    )
    assert torch.equal(index.cpu(), expected_index)
    y = y.float().cpu()
    torch.testing.assert_close(y, expected, rtol=0, atol=0, equal_nan=True)
    numbers = ~expected.isnan()
    assert torch.equal(y.signbit()[numbers], expected.signbit()[numbers])


# The pyramid

PYRAMIDS = (
    ((1, 2, 3, 6), Case("SPP-net's levels", (1, 3, 13, 13))),
    ((4, 2, 1), Case("levels that nest", (2, 3, 12, 16))),
    ((5, 3), Case("levels that do not nest", (1, 3, 7, 9))),
    (((2, 3), 4), Case("levels that are not square", (1, 3, 9, 11))),
    ((3,), Case("one level", (2, 3, 7, 8))),
    ((1,), Case("one bin", (2, 3, 7, 8))),
    ((2, 7), Case("more bins than elements", (1, 3, 3, 5))),
    ((1, 2), Case("bins of more elements than a byte counts", (1, 2, 19, 21))),
    ((1, 3), Case("ties", (1, 4, 9, 10), values="ties")),
    ((1, 3), Case("NaN", (1, 4, 9, 10), values="nan")),
    ((1, 2, 3), Case("channels last", (1, 67, 7, 8), view="channels_last")),
    ((3, 2, 1), Case("whole vectors of channels", (2, 24, 7, 8), view="channels_last")),
    ((2, 1), Case("more channels a thread", (66, 32, 3, 4), view="channels_last")),
    ((4, 1), Case("channels last with NaN", (2, 9, 7, 8), view="channels_last", values="nan")),
    ((1, 2), Case("a slice of a larger map", (2, 3, 9, 8), view="sliced")),
    ((1, 2), Case("an expanded gradient", (2, 3, 9, 8), view="expanded")),
    ((1, 2), Case("an empty batch", (0, 3, 9, 8))),
    ((1, 2), Case("unbatched", (3, 9, 8))),
)


def stacked(x, levels, kind):
    """A pyramid of PyTorch's own operators."""
    pool = getattr(torch.nn.functional, f"adaptive_{'avg' if kind == 'average' else kind}_pool2d")
    return torch.cat([pool(x, level).flatten(-3) for level in levels], -1)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ("max", "average"))
@pytest.mark.parametrize("levels, case", PYRAMIDS, ids=lambda value: str(value))
@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_pyramid_against_reference(server, levels, case, kind, dtype):
    backend, device = server
    x, y = compare(
        lambda x, backend: functional.spatial_pyramid_pool(x, levels, kind, backend=backend),
        lambda x: stacked(x, levels, kind),
        case,
        dtype,
        device,
        backend,
    )
    if kind == "max":
        assert torch.equal(y.nan_to_num(), stacked(x, levels, kind).nan_to_num())
    if backend != "aten":
        leaf = x.detach().requires_grad_()
        functional.spatial_pyramid_pool(leaf, levels, kind, backend=backend).sum().backward()
        if case.view != "sliced":  # autograd lays a gradient out as what it is of
            assert layout.memory_format(leaf.grad) == layout.memory_format(x)


@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_a_pyramid_has_one_length_for_any_map(server):
    """The lectures: k maps and M bins give k M numbers, whatever the map's size."""
    backend, device = server
    layer_lengths = set()
    for size in ((6, 6), (13, 9), (10, 13)):
        y = functional.spatial_pyramid_pool(
            torch.randn(2, 8, *size, device=device), (1, 2, 4), backend=backend
        )
        layer_lengths.add(tuple(y.shape))
    assert layer_lengths == {(2, 8 * 21)}


@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_by_hand(server):
    """Three bins of five: [0, 2), [1, 4), [3, 5)."""
    backend, device = server
    x = torch.tensor([[[1.0, 5.0, 3.0, 5.0, 2.0]]], device=device, requires_grad=True)
    y = functional.adaptive_avg_pool1d(x, 3, backend=backend)
    y.sum().backward()
    torch.testing.assert_close(y.flatten().cpu(), torch.tensor([3.0, 13 / 3, 3.5]))
    torch.testing.assert_close(x.grad.flatten().cpu(), torch.tensor([3, 5, 2, 5, 3.0]) / 6)
    y, index = functional.adaptive_max_pool1d(x, 3, return_indices=True, backend=backend)
    assert y.tolist() == [[[5, 5, 5]]] and index.tolist() == [[[1, 1, 3]]]


@pytest.mark.parametrize(
    "server", [server for server in servers("pool_adaptive") if server.values[0][0] != "aten"]
)
@pytest.mark.parametrize("size, dtype", ((13, torch.uint8), (40, torch.int64)))
def test_training_keeps_a_byte_where_it_can(server, size, dtype):
    """PyTorch keeps eight bytes per output; here it is one, for bins of at most 256 elements."""
    backend, device = server
    x = torch.randn(1, 2, size, size, device=device, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        pooled = functional.adaptive_max_pool2d(x, 3, backend=backend)
        pyramid = functional.spatial_pyramid_pool(x, (1, 2), backend=backend)
    # A third of 40 elements is 14 of them: 196 a bin, which a byte counts in either map.
    kept = [(torch.uint8, pooled.numel()), (dtype, pyramid.numel())]
    assert [(t.dtype, t.numel()) for t in saved] == kept
    assert pyramid.numel() == 2 * 5


@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_derivatives(server):
    backend, device = server
    x = torch.randn(1, 2, 7, 6, dtype=torch.float64, device=device, requires_grad=True)
    for function in (
        lambda x: functional.adaptive_avg_pool2d(x, (3, 4), backend=backend),
        lambda x: functional.adaptive_max_pool2d(x, (3, 4), backend=backend),
        lambda x: functional.adaptive_max_pool2d(x, 4, return_indices=True, backend=backend)[0],
        lambda x: functional.adaptive_avg_pool1d(x.flatten(2), 5, backend=backend),
        lambda x: functional.adaptive_max_pool3d(
            x.unflatten(3, (2, 3)), (3, 2, 2), backend=backend
        ),
        lambda x: functional.spatial_pyramid_pool(x, (1, 2, 3), "average", backend=backend),
        lambda x: functional.spatial_pyramid_pool(x, (1, 2, 3), "max", backend=backend),
    ):
        torch.autograd.gradcheck(function, x, fast_mode=True)
        torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    contiguous = torch.randn(2, 3, 7, 8, device=device)
    ops, check, levels = torch.ops.pydl, opcheck, [1, 1, 2, 3]
    for last in (False, True):
        x = contiguous.contiguous(memory_format=torch.channels_last) if last else contiguous
        check(ops.adaptive_avg_pool_forward.default, (x, [3, 5], backend))
        y = ops.adaptive_avg_pool_forward(x, [3, 5], backend)
        check(ops.adaptive_avg_pool_backward.default, (y, [7, 8], layout.channels_last(x), backend))
        for index in ("none", "offset", "flat"):
            check(ops.adaptive_max_pool_forward.default, (x, [3, 5], index, backend))
            check(ops.pyramid_pool_forward.default, (x, levels, "max", index, backend))
            if index == "none":
                continue
            y, taken = ops.adaptive_max_pool_forward(x, [3, 5], index, backend)
            check(ops.adaptive_max_pool_backward.default, (y, taken, [7, 8], backend))
            y, taken = ops.pyramid_pool_forward(x, levels, "max", index, backend)
            arguments = (y, taken, [3, 7, 8], levels, "max", last, backend)
            check(ops.pyramid_pool_backward.default, arguments)
        check(ops.pyramid_pool_forward.default, (x, levels, "average", "none", backend))


@pytest.mark.parametrize("kind", ("max", "average"))
@pytest.mark.parametrize("server", servers("pool_adaptive"))
def test_pools_and_saved_places_fit_across_backends(server, kind):
    """The reference's backward reads what another backend saved, and the other way round."""
    backend, device = server
    x, levels = torch.randn(2, 3, 9, 8, device=device), [2, 3, 4, 1]
    for index in ("offset", "flat") if kind == "max" else ("none",):
        results = {}
        for name in (backend, "reference"):
            y, taken = backends.function(name, "pyramid_pool_forward")(x, levels, kind, index)
            results[name] = y, taken
        assert torch.equal(results[backend][1], results["reference"][1])
        y, taken = results[backend]
        arguments = (y, taken, [3, 9, 8], levels, kind, False)
        torch.testing.assert_close(
            backends.function(backend, "pyramid_pool_backward")(*arguments),
            backends.function("reference", "pyramid_pool_backward")(*arguments),
        )


def test_the_longest_bin():
    for size in range(1, 30):
        for count in range(1, 30):
            lengths = [-(-(o + 1) * size // count) - o * size // count for o in range(count)]
            assert longest(size, count) == max(lengths)


@pytest.mark.parametrize("server", servers("pool_adaptive"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    output_size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
)
def test_any_bins(server, size, output_size, view):
    backend, device = server
    case = Case("any", (1, 3, *size), view=view, values="ties")
    x = operand(case, torch.float32, device)
    for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
        mine = run(
            partial(ours, output_size=output_size, backend=backend), [x], partial(gradient, case)
        )
        other = run(partial(theirs, output_size=output_size), [x], partial(gradient, case))
        for a, b in zip(mine, other, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    "server", [server for server in servers("pool_adaptive") if server.values[0][0] == "cuda"]
)
def test_threads_without_a_bin_read_nothing(server):
    """Of a block's bins, some are behind the last, where there would be another image."""
    backend, device = server
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, device=device)
    far = x.as_strided(x.shape, (2**44, *x.stride()[1:]))
    y = functional.adaptive_avg_pool2d(far, 1, backend=backend)
    torch.testing.assert_close(y, x.mean((2, 3), keepdim=True))


X = torch.randn(1, 3, 8, 8)
BAD = (
    ("adaptive_avg_pool2d", ([1.0], 2), TypeError, "argument 'input' must be Tensor, not list"),
    (
        "adaptive_avg_pool2d",
        (X[0, 0], 2),
        RuntimeError,
        "Expected 3D or 4D tensor, but got \\[8, 8\\]",
    ),
    ("adaptive_avg_pool2d", (X, (2,)), RuntimeError, "output_size must be 2"),
    (
        "adaptive_avg_pool2d",
        (X, -1),
        RuntimeError,
        "elements of output_size must be greater than or equal to 0",
    ),
    ("adaptive_avg_pool2d", (X, 2.0), TypeError, "object of type 'float' has no len"),
    ("adaptive_max_pool2d", (X[:, :0], 2), RuntimeError, "to have non-zero size"),
    ("adaptive_max_pool2d", (X.long(), 2), RuntimeError, "serves float32.*got torch.int64"),
    ("spatial_pyramid_pool", (X, ()), ValueError, "expected 1 to 16 levels, got 0"),
    ("spatial_pyramid_pool", (X, (1,) * 17), ValueError, "expected 1 to 16 levels, got 17"),
    ("spatial_pyramid_pool", (X, 3), TypeError, "argument 'levels' must be tuple of ints"),
    ("spatial_pyramid_pool", (X, (0,)), RuntimeError, "levels should be greater than zero"),
    ("spatial_pyramid_pool", (X, (1,), "mean"), ValueError, "kind must be 'max' or 'average'"),
)


@pytest.mark.parametrize("name, arguments, error, message", BAD)
def test_bad_input(name, arguments, error, message):
    for backend in ("reference", "cpu", "triton", "cuda"):
        if backends.BACKENDS[backend].devices in ((), ("cpu",)):
            with pytest.raises(error, match=message):
                getattr(functional, name)(*arguments, backend=backend)


@pytest.mark.parametrize(
    "server", [server for server in servers("pool_adaptive") if server.values[0][0] != "aten"]
)
def test_no_bins_give_nothing(server):
    """PyTorch pools into no bins, but has no gradient of that."""
    backend, device = server
    x = torch.randn(2, 3, 5, 5, device=device, requires_grad=True)
    y = functional.adaptive_avg_pool2d(x, (0, 2), backend=backend)
    assert y.shape == (2, 3, 0, 2)
    with pytest.raises(RuntimeError, match="Expected grad_output to have non-zero size"):
        y.sum().backward()
