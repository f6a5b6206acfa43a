"""Response normalisation within a channel: every backend against the reference, and the reference
against PyTorch's pooling and by hand."""

import pytest
import torch
from contract import (
    DTYPES,
    INSTRUCTION_SETS,
    Case,
    gradient,
    hold,
    instruction_set,
    opcheck,
    operand,
    run,
    run_pytorch,
    servers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import functional
from pydl.nn import SpatialResponseNorm

CASES = (
    Case("cuda-convnet's box of five", (2, 3, 7, 9), {"size": 5}),
    Case("no beta of a default", (1, 2, 6, 5), {"size": 3, "alpha": 0.5, "beta": 0.6, "k": 2.0}),
    Case("an even size looks further back than ahead", (2, 3, 6, 5), {"size": 4}),
    Case("a size of two", (1, 5, 4, 3), {"size": 2}),
    Case("a size of one", (1, 3, 3, 3), {"size": 1}),
    Case("a box larger than the map", (2, 3, 4, 5), {"size": 13}),
    Case("one position", (2, 3, 1, 1), {"size": 3}),
    Case("a map of one column", (2, 3, 9, 1), {"size": 3}),
    Case("large values where the sum dominates", (1, 3, 6, 6), {"size": 3}, values="large"),
    Case("channels last", (2, 8, 5, 7), {"size": 5}, "channels_last"),
    Case("channels last, even size", (2, 17, 3, 5), {"size": 4}, "channels_last"),
    Case("rows of two long strips", (1, 2, 27, 5), {"size": 3}),
    Case("rows of two long strips, five", (1, 2, 25, 5), {"size": 5}),
    Case("channels last, strips", (1, 9, 11, 5), {"size": 3}, "channels_last"),
    Case("channels last, a box in a loop", (1, 9, 11, 15), {"size": 11}, "channels_last"),
    Case("five axes in strips", (1, 2, 4, 9, 3), {"size": 2}),
    Case(
        "NaN spreads to its boxes and no further, channels last",
        (1, 8, 9, 7),
        {"size": 3, "k": 0.0},
        "channels_last",
        values="nan",
    ),
    Case("a slice of a larger map", (2, 3, 5, 6), {"size": 3}, "sliced"),
    Case("an odd storage offset", (1, 3, 5, 3), {"size": 3}, "offset"),
    Case("an expanded gradient", (2, 3, 5, 6), {"size": 3}, "expanded"),
    Case("an empty batch", (0, 6, 5, 3), {"size": 3}),
    Case("three axes", (2, 6, 11), {"size": 3}),
    Case("five axes, sizes apart", (1, 2, 4, 5, 6), {"size": 3}),
    Case("five axes channels last, an even size", (1, 3, 5, 4, 3), {"size": 2}, "channels_last"),
    Case("NaN spreads to its boxes and no further", (1, 3, 6, 7), {"size": 3}, values="nan"),
    Case("more lines and columns than a block of any kernel", (1, 1, 35, 37), {"size": 5}),
)


def pytorch(x: torch.Tensor, size: int, alpha=1.0, beta=0.75, k=1.0) -> torch.Tensor:
    """By PyTorch's own padding, pooling and powers."""
    axes = x.ndim - 2
    pool = getattr(torch.nn.functional, f"avg_pool{axes}d")
    padded = torch.nn.functional.pad(x * x, (size // 2, (size - 1) // 2) * axes)
    return x * (k + alpha * pool(padded, size, stride=1)) ** -beta


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("spatial_norm"))
def test_against_reference(server, case, dtype):
    backend, device = server
    x = operand(case, dtype, device)

    def function(x, backend):
        return functional.spatial_response_norm(x, **case.arguments, backend=backend)

    def grad_of(y):
        return gradient(case, y)

    theirs = [None, None]
    if x.numel():  # PyTorch's pooling takes no empty maps
        theirs = run_pytorch(lambda x: pytorch(x, **case.arguments), [x], grad_of)
        if backend == "aten" and theirs[0] is None:
            pytest.skip(f"PyTorch has no average pooling of {x.ndim - 2} axes of {dtype} here")
    ours = run(lambda x: function(x, backend), [x], grad_of)
    exact = run(lambda x: function(x, "reference"), [x.double()], grad_of)
    for what, *three in zip(("y", "grad_x"), ours, theirs, exact, strict=True):
        hold(*three, what)


@pytest.mark.parametrize("case", [case for case in CASES if 0 not in case.shape], ids=str)
def test_reference_is_pytorch_in_float64(case):
    x = operand(case, torch.float64, "cpu")
    ours = run(
        lambda x: functional.spatial_response_norm(x, **case.arguments, backend="reference"),
        [x],
        lambda y: gradient(case, y),
    )
    theirs = run(lambda x: pytorch(x, **case.arguments), [x], lambda y: gradient(case, y))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("server", servers("spatial_norm"))
def test_by_hand(server):
    """[[1, 2], [3, 4]] with size 3, alpha 9, k 1, beta 1: every box is the whole map, y = x / 31.
    With size 2 and alpha 4 a box looks one back: y = x / (1 + the squares in it)."""
    backend, device = server
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=device).reshape(1, 1, 2, 2)
    y = functional.spatial_response_norm(x, 3, alpha=9.0, beta=1.0, k=1.0, backend=backend)
    torch.testing.assert_close(y, x / 31)
    y = functional.spatial_response_norm(x, 2, alpha=4.0, beta=1.0, k=1.0, backend=backend)
    expected = torch.tensor([1 / 2, 2 / 6, 3 / 11, 4 / 31], device=device).reshape(1, 1, 2, 2)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("server", servers("spatial_norm"))
def test_derivatives(server):
    backend, device = server
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64, device=device, requires_grad=True)

    def function(x):
        return functional.spatial_response_norm(x, 2, 0.7, 0.8, 1.3, backend=backend)

    torch.autograd.gradcheck(function, x, fast_mode=True)
    torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("spatial_norm"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    x, grad_y = torch.randn(2, 6, 3, 5, device=device), torch.randn(2, 6, 3, 5, device=device)
    arguments = (3, 0.5, 0.75, 1.0, backend)
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        opcheck(torch.ops.pydl.spatial_norm_forward.default, (map, *arguments))
        opcheck(torch.ops.pydl.spatial_norm_backward.default, (grad_y, map, *arguments))


@pytest.mark.parametrize("server", servers("spatial_norm"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, limit) for limit in (2, 3, 3, 6, 7))),
    size=st.integers(1, 5),
    beta=st.sampled_from([0.5, 0.75, 1.0]),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
)
def test_any_shape(server, shape, size, beta, view):
    backend, device = server
    case = Case("any", shape, view=view)
    x = operand(case, torch.float32, device)
    arguments = (size, 0.5, beta, 1.5)
    ours = run(
        lambda x: functional.spatial_response_norm(x, *arguments, backend=backend),
        [x],
        lambda y: gradient(case, y),
    )
    theirs = run(lambda x: pytorch(x, *arguments), [x], lambda y: gradient(case, y))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-5, atol=1e-5)


@pytest.mark.native
@pytest.mark.parametrize("shape", [(1, 1, 40, 9), (1, 3, 3, 17, 5), (3, 2, 4, 31)], ids=str)
@pytest.mark.parametrize("view", ["contiguous", "channels_last"])
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_threads_do_not_show(isa, view, shape):
    """One map for several threads is cut into runs of lines."""
    x = operand(Case("threads", shape, view=view), torch.float32, "cpu")
    before, seen = torch.get_num_threads(), []
    with instruction_set(isa):
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            seen.append(
                run(
                    lambda x: functional.spatial_response_norm(x, 3, 0.7, backend="cpu"),
                    [x],
                    torch.sin,
                )
            )
    torch.set_num_threads(before)
    exact = run(lambda x: pytorch(x, 3, 0.7), [x.double()], torch.sin)
    for other in seen:
        for first, mine, right in zip(seen[0], other, exact, strict=True):
            assert torch.equal(first, mine)
            torch.testing.assert_close(mine, right.float(), rtol=2e-5, atol=1e-5)


def test_the_layer():
    layer = SpatialResponseNorm(3, alpha=0.5, k=2.0)
    x = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(layer(x), pytorch(x, 3, 0.5, k=2.0))
    assert repr(layer) == "SpatialResponseNorm(3, alpha=0.5, beta=0.75, k=2.0)"
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([1.0], 5), TypeError, "argument 'input' must be Tensor, not list"),
        ((torch.randn(4, 4), 5), ValueError, "Expected 3D to 5D"),
        ((torch.randn(1, 1, 1, 1, 4, 4), 5), ValueError, "Expected 3D to 5D"),
        ((torch.randn(1, 4, 4), 0), RuntimeError, "size should be greater than zero"),
        ((torch.randn(1, 4, 4), 2.5), TypeError, "argument 'size' must be"),
        ((torch.ones(1, 4, 4, dtype=torch.int64), 3), RuntimeError, "got torch.int64"),
    ],
)
def test_bad_input(arguments, error, message):
    for backend in ("reference", "cpu"):
        with pytest.raises(error, match=message):
            functional.spatial_response_norm(*arguments, backend=backend)
