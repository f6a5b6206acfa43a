"""Max unpooling: every backend against the reference, and the reference against PyTorch and by
hand."""

import pytest
import torch
from contract import DTYPES, Case, gradient, opcheck, operand, run, servers

from pydl import backends, functional, native

CASES = (
    (2, Case("windows that do not overlap", (2, 5, 8, 10), {"kernel_size": 2})),
    (2, Case("gaps between windows", (1, 3, 11, 12), {"kernel_size": 2, "stride": 3})),
    (2, Case("padding", (1, 3, 9, 9), {"kernel_size": 3, "stride": 3, "padding": 1})),
    (2, Case("every axis its own", (2, 3, 12, 9), {"kernel_size": (3, 2), "stride": (3, 4)})),
    (2, Case("channels last", (2, 9, 8, 10), {"kernel_size": 2}, "channels_last")),
    (2, Case("whole vectors of channels", (2, 40, 10, 8), {"kernel_size": 2}, "channels_last")),
    (2, Case("several chunks of a plane", (1, 3, 170, 160), {"kernel_size": 2})),
    (
        2,
        Case(
            "several chunks of some channels", (1, 8, 54, 60), {"kernel_size": 2}, "channels_last"
        ),
    ),
    (2, Case("chunks of planes of odd sizes", (1, 2, 123, 91), {"kernel_size": 3})),
    (2, Case("a slice of a larger map", (2, 3, 8, 6), {"kernel_size": 2}, "sliced")),
    (2, Case("an odd storage offset", (1, 3, 8, 6), {"kernel_size": 2}, "offset")),
    (2, Case("an expanded gradient", (2, 3, 8, 6), {"kernel_size": 2}, "expanded")),
    (2, Case("an empty batch", (0, 3, 8, 6), {"kernel_size": 2})),
    (2, Case("unbatched", (3, 8, 6), {"kernel_size": 2})),
    (1, Case("one axis", (2, 5, 18), {"kernel_size": 3})),
    (3, Case("three axes", (1, 3, 4, 6, 8), {"kernel_size": 2})),
    (3, Case("three axes channels last", (2, 5, 4, 6, 8), {"kernel_size": 2}, "channels_last")),
)


def pooled(axes, case, dtype, device):
    """What a max pooling made, the places it came from and the size it came of."""
    x = operand(case, dtype, device)
    pool = getattr(torch.nn.functional, f"max_pool{axes}d_with_indices")
    return *pool(x, **case.arguments), x.shape


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axes, case", CASES, ids=lambda value: str(value))
@pytest.mark.parametrize("server", servers("unpool"))
def test_is_pytorchs(server, axes, case, dtype):
    """Values only move, so there is nothing to round: all backends give PyTorch's bits."""
    backend, device = server
    x, index, size = pooled(axes, case, dtype, device)
    size = size[-axes:]
    name = f"max_unpool{axes}d"
    ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
    mine = run(
        lambda x: ours(x, index, **case.arguments, output_size=size, backend=backend),
        [x],
        lambda y: gradient(case, y),
    )
    other = run(
        lambda x: theirs(x, index, **case.arguments, output_size=size),
        [x],
        lambda y: gradient(case, y),
    )
    for a, b in zip(mine, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] != "aten"]
)
@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
def test_the_last_in_scan_order_stays(server, view):
    """Three name place 1, two place 3; all of them get its gradient."""
    backend, device = server
    index = torch.tensor([1, 3, 1, 0, 3, 1], device=device).reshape(1, 1, 2, 3)
    index = index.expand(2, 20, 2, 3).contiguous()
    x = torch.arange(240.0, device=device).reshape(2, 20, 2, 3) + 1
    if view == "channels_last":
        x, index = (t.contiguous(memory_format=torch.channels_last) for t in (x, index))
    x.requires_grad_()
    y = functional.max_unpool2d(x, index, (1, 2), output_size=(2, 6), backend=backend)
    expected = torch.zeros_like(y).flatten(2)
    values = x.detach().flatten(2)
    for place, source in ((0, 3), (1, 5), (3, 4)):
        expected[..., place] = values[..., source]
    assert torch.equal(y, expected.reshape(y.shape))
    grad = torch.randn_like(y)
    (grad_x,) = torch.autograd.grad(y, x, grad)
    assert torch.equal(grad_x.flatten(2), grad.flatten(2).gather(2, index.flatten(2)))


@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] == "cuda"]
)
@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
@pytest.mark.parametrize("channels", (3, 8))
def test_places_in_any_order(server, view, channels):
    """Every run of elements names places of every chunk, some of them twice."""
    generator = torch.Generator().manual_seed(1)
    index = torch.randint(40 * 190, (2, channels, 30, 25), generator=generator)
    hold_to_reference(server, index, (40, 190), view)


@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] == "cuda"]
)
@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
def test_the_only_place_is_the_first_of_a_chunk(server, view):
    """Chunks begin at multiples of 16: an image for each."""
    index = torch.arange(0, 2048, 16).reshape(-1, 1, 1, 1).expand(-1, 4, 1, 1)
    hold_to_reference(server, index, (32, 64), view)


@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] == "cuda"]
)
@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
def test_runs_far_apart_name_one_chunk(server, view):
    """The first run of 64 elements and the last; the 31 between name places of other chunks, so
    that one lane has both, in two turns."""
    index = torch.arange(33 * 64)
    index[64:-64] += 8192
    index[-64:] = torch.arange(64, 128)
    index = index.reshape(1, 1, 32, 66).expand(1, 8, 32, 66)
    hold_to_reference(server, index, (64, 161), view)


def hold_to_reference(server, index, size, view):
    """Both passes, of random values."""
    backend, device = server
    generator = torch.Generator().manual_seed(1)
    lies = torch.channels_last if view == "channels_last" else torch.contiguous_format
    x = torch.randn(index.shape, generator=generator)
    x, index = (t.to(device).contiguous(memory_format=lies) for t in (x, index))
    arguments = (x, index, list(size))
    y = backends.function(backend, "max_unpool_forward")(*arguments)
    assert torch.equal(y, backends.function("reference", "max_unpool_forward")(*arguments))
    arguments = (torch.randn(y.shape, generator=generator).to(device), index)
    grad = backends.function(backend, "max_unpool_backward")(*arguments)
    assert torch.equal(grad, backends.function("reference", "max_unpool_backward")(*arguments))


@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] == "cuda"]
)
def test_the_kernels_pass_over_places_outside(server):
    """A kernel cannot raise: it makes NaN of them, and does not touch a neighbour's."""
    _, device = server
    library = native.library("cuda")
    index = torch.tensor([[8, 1, -1, 3], [-8, 2, 8, 100]], device=device).reshape(1, 2, 2, 2)
    x = torch.arange(8.0, device=device).reshape(1, 2, 2, 2) + 1
    y, room = (torch.zeros(1, 2, 2, 4, device=device, dtype=t) for t in (x.dtype, torch.int64))
    library.call("max_unpool_forward", x, index, y, room, on=x)
    expected = [[[-1, 2, 0, 4, 0, 0, 0, 0], [-1, 0, 6, 0, 0, 0, 0, 0]]]
    assert y.flatten(2).nan_to_num(-1).tolist() == expected
    grad_x = torch.empty_like(x)
    library.call("max_unpool_backward", torch.ones_like(y), index, grad_x, on=x)
    assert grad_x.flatten(2).nan_to_num(-1).tolist() == [[[-1, 1, -1, 1], [-1, 1, -1, -1]]]
    across = torch.empty_like(x), index.contiguous(memory_format=torch.channels_last)
    library.call("max_unpool_backward", torch.ones_like(y), *across[::-1], on=x)
    assert torch.equal(across[0].nan_to_num(-1), grad_x.nan_to_num(-1))


@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] == "cuda"]
)
def test_the_kernels_refuse_what_they_do_not_serve(server):
    _, device = server
    library = native.library("cuda")
    x, y = (torch.zeros(1, 2, 2, w, device=device) for w in (2, 4))
    index, room = (torch.zeros(s, device=device, dtype=torch.int64) for s in ((1, 2, 2, 2), 2))
    last = y.contiguous(memory_format=torch.channels_last)
    for arguments, message in (
        ((x, index, y[..., ::2], room), "without gaps"),
        ((x, index, last, room), "in the layout of the result"),
        ((x, index, y, room[:1]), "room for a number for each run"),
    ):
        with pytest.raises(ValueError, match=message):
            library.call("max_unpool_forward", *arguments, on=x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("view", ("contiguous", "channels_last"))
@pytest.mark.parametrize(
    "server", [server for server in servers("unpool") if server.values[0][0] in ("cuda", "triton")]
)
def test_a_place_outside_makes_nan_where_nothing_looks(server, view, dtype, monkeypatch):
    """On a GPU the operator does not wait until the places have been looked at."""
    backend, device = server
    kernels = "pydl.kernels.unpool" if backend == "triton" else "pydl.native.unpool"
    monkeypatch.setattr(f"{kernels}.check_positions", lambda *_: None)
    lies = torch.channels_last if view == "channels_last" else torch.contiguous_format
    index = torch.tensor([[8, 1, 2, 3], [-1, 2, 7, 1]], device=device).reshape(1, 2, 2, 2)
    x = torch.arange(8.0, device=device, dtype=dtype).reshape(1, 2, 2, 2) + 1
    x, index = (t.repeat(2, 8, 1, 1).contiguous(memory_format=lies) for t in (x, index))
    y = backends.function(backend, "max_unpool_forward")(x, index, [2, 4])
    nan = float("nan")
    expected = torch.tensor([[nan, 2, 3, 4, 0, 0, 0, 0], [nan, 8, 6, 0, 0, 0, 0, 7]], dtype=dtype)
    for image in y.flatten(2).cpu():
        assert torch.equal(image.nan_to_num(-1), expected.nan_to_num(-1).repeat(8, 1))
    grad_y = torch.ones_like(y)
    for lying in (grad_y, grad_y.contiguous()):
        grad_x = backends.function(backend, "max_unpool_backward")(lying, index)
        for image in grad_x.flatten(2).isnan().tolist():
            assert image == [[True] + [False] * 3] * 16
        assert grad_x.nan_to_num(1).eq(1).all()


@pytest.mark.parametrize("server", servers("unpool"))
def test_unpooling_undoes_pooling(server):
    """The lectures' second pooling example, put back where its maxima were."""
    backend, device = server
    x = torch.tensor(
        [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12.0]], device=device
    )[None]
    y, index = functional.max_pool2d(x, 2, return_indices=True)
    assert functional.max_unpool2d(y, index, 2, backend=backend).tolist() == [
        [[0, 20, 30, 0], [0, 0, 0, 0], [0, 0, 37, 0], [112, 0, 0, 0]]
    ]


@pytest.mark.parametrize("server", servers("unpool"))
def test_derivatives(server):
    backend, device = server
    x = torch.randn(2, 2, 6, 8, dtype=torch.float64, device=device)
    y, index = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    y.requires_grad_()

    def function(y):
        return functional.max_unpool2d(y, index, 2, backend=backend)

    torch.autograd.gradcheck(function, y, fast_mode=True)
    torch.autograd.gradgradcheck(function, y, fast_mode=True)


@pytest.mark.parametrize("server", servers("unpool"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    x, index = torch.nn.functional.max_pool2d(
        torch.randn(2, 3, 8, 6, device=device), 2, return_indices=True
    )
    ops = torch.ops.pydl
    opcheck(ops.max_unpool_forward.default, (x, index, [8, 6], backend))
    y = ops.max_unpool_forward(x, index, [8, 6], backend)
    opcheck(ops.max_unpool_backward.default, (y, index, backend))


X, INDEX = torch.nn.functional.max_pool2d(torch.randn(1, 3, 8, 8), 2, return_indices=True)
BAD = (
    ((X, INDEX.int(), 2), RuntimeError, "indices should be type int64"),
    ((X, INDEX[:, :2], 2), RuntimeError, "Expected shape of indices to be same"),
    ((X, INDEX + 60, 2), RuntimeError, "Found an invalid max index"),
    ((X, INDEX - 20, 2), RuntimeError, "Found an invalid max index: -"),
    ((X, INDEX, 2, 2, 0, (20, 8)), ValueError, "invalid output_size.*between 6 and 10"),
    ((X, INDEX, 2, 2, 0, (8,)), ValueError, "containing 2 or 4 elements"),
    ((X, INDEX, 2, 0), RuntimeError, "Found an invalid max index"),
    ((X[0, 0], INDEX[0, 0], 2), RuntimeError, "should be a 3d or 4d Tensor"),
)


@pytest.mark.parametrize("arguments, error, message", BAD)
def test_bad_input(arguments, error, message):
    for backend in ("reference", "cpu", "triton", "cuda"):
        if backends.BACKENDS[backend].devices in ((), ("cpu",)):
            with pytest.raises(error, match=message):
                functional.max_unpool2d(*arguments, backend=backend)


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_layers(axes):
    from pydl import nn

    pool = getattr(torch.nn, f"MaxPool{axes}d")(2, return_indices=True)
    ours, theirs = (getattr(where, f"MaxUnpool{axes}d")(2) for where in (nn, torch.nn))
    y, index = pool(torch.randn(2, 3, *[8] * axes))
    assert torch.equal(ours(y, index), theirs(y, index)) and str(ours) == str(theirs)
