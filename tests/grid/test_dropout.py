"""Dropout: Philox against its published vectors, every backend's mask against the reference's, and
the statistics of the mask."""

import itertools
import math

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, instruction_set, laid_out, opcheck, servers

from pydl import backends, functional, layout, nn
from pydl.reference.dropout import philox

# shape, layout, and why
SHAPES = (
    ((19,), "contiguous"),  # not a whole number of counters
    ((3, 700), "contiguous"),  # several runs and blocks of any kernel, the last not whole
    ((2, 17, 5, 6), "channels_last"),
    ((2, 5, 3, 2, 4), "channels_last"),
    ((2, 3, 5, 6), "sliced"),
    ((2, 3, 5, 6), "offset"),
    ((2, 3, 2, 2, 3, 2), "contiguous"),  # six axes
    ((), "contiguous"),
    ((0, 3), "contiguous"),
)
OURS = [server for server in servers("dropout") if server.values[0][0] != "aten"]


def test_philox_gives_the_published_words():
    """Random123's known answers for philox4x32 with 10 rounds."""
    ones = 0xFFFFFFFF
    for counter, key, expected in (
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ):
        words = philox([torch.tensor([c]) for c in counter], list(key))
        assert tuple(word.item() for word in words) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("server", OURS)
def test_against_reference(server, dtype):
    """The same elements are kept, and with the same factor."""
    backend, device = server
    draws = list(itertools.product((0, 12345, 2**63 - 1, -1), SHAPES, (0.5, 0.1, 1.0)))
    # Interpreted, every seventh, which is prime to how many there are of each.
    for seed, (shape, view), p in draws[:: 7 if backend == "triton" else 1]:
        key = torch.tensor(seed, device=device)
        x = laid_out(torch.randn(shape).to(dtype).to(device), view)
        ours, exact = (
            backends.function(who, "dropout_forward")(x, p, key) for who in (backend, "reference")
        )
        torch.testing.assert_close(ours, exact)
        if backend != "reference":
            assert layout.memory_format(ours) == layout.memory_format(x)
        last = layout.memory_format(x) is not torch.contiguous_format
        ours, exact = (
            backends.function(who, "dropout_backward")(x.contiguous(), p, key, last)
            for who in (backend, "reference")
        )
        torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize("server", OURS)
def test_the_backward_has_the_forward_mask(server):
    backend, device = server
    for shape, view in SHAPES:
        x = laid_out(torch.rand(shape, device=device) + 1, view).requires_grad_()
        y = functional.dropout(x, 0.3, backend=backend)
        for grad_y in (torch.ones_like(y), torch.ones((), device=device).expand(shape)):
            (grad_x,) = torch.autograd.grad(y, x, grad_y, retain_graph=True)
            torch.testing.assert_close(grad_x, (y != 0) / 0.7)


@pytest.mark.parametrize("server", OURS)
def test_manual_seed_repeats_and_calls_differ(server):
    backend, device = server
    x = torch.ones(1000, device=device)

    def draw():
        return functional.dropout(x, 0.5, backend=backend)

    torch.manual_seed(5)
    first, second = draw(), draw()
    torch.manual_seed(5)
    assert torch.equal(first, draw()) and torch.equal(second, draw())
    assert not torch.equal(first, second)
    if device == "cpu":
        torch.manual_seed(5)
        assert torch.equal(first, functional.dropout(x, 0.5, backend="reference"))


@pytest.mark.parametrize("p", (0.02, 0.5, 0.9))
def test_statistics(p):
    """The share of kept elements and its spread over neighbourhoods are those of independent draws,
    within five standard deviations; neighbours do not go together."""
    n = 1 << 20
    kept = (functional.dropout(torch.ones(n), p, backend="cpu") != 0).double()
    deviation = math.sqrt(p * (1 - p) / n)
    assert abs(kept.mean().item() - (1 - p)) < 5 * deviation
    for step in (1, 2, 3, 4, 64, 1024):
        together = (kept[step:] * kept[:-step]).mean().item()
        assert abs(together - (1 - p) ** 2) < 5 * math.sqrt((1 - p) ** 2 / n)
    counts = kept.reshape(-1, 1024).sum(1)
    ratio = counts.var().item() / (1024 * p * (1 - p))
    assert abs(ratio - 1) < 5 * math.sqrt(2 / counts.numel())


@pytest.mark.parametrize("server", servers("dropout"))
def test_edges(server):
    backend, device = server
    x = torch.tensor([1.0, torch.inf, torch.nan, -2.0], device=device)
    for p, training in ((0.0, True), (0.5, False), (1.0, False)):
        assert functional.dropout(x, p, training, backend=backend) is x
    y = functional.dropout(x, 1.0, backend=backend)
    expected = torch.nn.functional.dropout(x, 1.0)
    torch.testing.assert_close(y, expected, equal_nan=True)
    x = torch.ones(100, device=device)
    y = functional.dropout(x, 0.5, inplace=True, backend=backend)
    assert y is x and set(x.tolist()) == {0.0, 2.0}
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"has to be between 0 and 1, but got {p}"):
            functional.dropout(x, p, backend=backend)
    with pytest.raises(TypeError, match="argument 'input' must be Tensor"):
        functional.dropout([1.0], backend=backend)


@pytest.mark.parametrize("server", OURS)
def test_derivatives(server):
    backend, device = server
    x = torch.randn(3, 7, dtype=torch.float64, device=device, requires_grad=True)

    def function(x):
        torch.manual_seed(0)
        return functional.dropout(x, 0.4, backend=backend)

    torch.autograd.gradcheck(function, x, fast_mode=True)
    torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("dropout"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    seed = torch.tensor(7, device=device)
    x = torch.randn(2, 3, 4, 5, device=device)
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        opcheck(torch.ops.pydl.dropout_forward.default, (map, 0.5, seed, backend))
        for last in (False, True):
            opcheck(torch.ops.pydl.dropout_backward.default, (map, 0.5, seed, last, backend))


@pytest.mark.parametrize("server", servers("dropout"))
def test_whole_channels(server):
    backend, device = server
    for name, shape, channels in (
        ("dropout1d", (4, 50, 3), 2),
        ("dropout1d", (50, 3), 1),
        ("dropout2d", (4, 50, 3, 2), 2),
        ("dropout3d", (4, 50, 3, 2, 2), 2),
        ("dropout3d", (50, 3, 2, 2), 1),
    ):
        function = getattr(functional, name)
        x = torch.rand(shape, device=device) + 1
        leaf = x.clone().requires_grad_()
        y = function(leaf, 0.5, backend=backend)
        dropped = (y == 0).flatten(channels)
        assert torch.equal(dropped.all(-1), dropped.any(-1)) and 0 < dropped.float().mean() < 1
        torch.testing.assert_close(y.detach(), torch.where(y == 0, 0, 2 * x))
        (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        torch.testing.assert_close(grad, torch.where(y == 0, 0.0, 2.0))
        if backend != "aten":  # PyTorch's returns a view of what has no batch
            assert function(x, 0.5, training=False, backend=backend) is x
            assert function(x, 0.5, inplace=True, backend=backend) is x
    with pytest.warns(UserWarning, match="dropout2d"):
        y = functional.dropout2d(torch.ones(4, 50, 3, device=device), backend=backend)
    assert torch.equal((y == 0).all(-1), (y == 0).any(-1))
    with pytest.raises(RuntimeError, match="Expected 2D or 3D input, but received a 1D"):
        functional.dropout1d(torch.ones(4, device=device), backend=backend)


@pytest.mark.parametrize("server", OURS)
def test_no_mask_is_stored(server):
    backend, device = server
    x, saved = torch.randn(100, device=device, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        functional.dropout(x, backend=backend)
    assert [t.numel() for t in saved] == [1]


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set(isa):
    with instruction_set(isa):
        for dtype in DTYPES:
            test_against_reference(("cpu", "cpu"), dtype)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_results_past_the_caches(isa):
    """Results of 16 MB and more are streamed, unless they begin between two lines of the cache."""
    memory = torch.ones((4 << 20) + 4100)
    seed = torch.tensor(3)
    with instruction_set(isa):
        expected = backends.function("reference", "dropout_forward")(memory, 0.5, seed)
        for x in (memory, memory[1:]):
            ours = backends.function("cpu", "dropout_forward")(x, 0.5, seed)
            assert torch.equal(ours, expected[: x.numel()])


def test_the_same_bits_on_every_thread_count():
    x, threads = torch.randn(70_000), torch.get_num_threads()
    seen = []
    for count in (1, 2):
        torch.set_num_threads(count)
        torch.manual_seed(1)
        seen.append(functional.dropout(x, backend="cpu"))
    torch.set_num_threads(threads)
    assert torch.equal(*seen)


@pytest.mark.parametrize("name", ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"))
def test_layers(name):
    x = torch.ones(2, 60, *[3] * int(name[-2] if name[-1] == "d" else 1))
    layer = getattr(nn, name)(0.25, backend="cpu")
    y = layer(x)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert layer.eval()(x) is x
    assert getattr(nn, name)(inplace=True, backend="cpu")(x) is x


@pytest.mark.parametrize("backend", ("cpu", "reference", "triton"))
def test_compiles_whole(backend):
    if backends.BACKENDS[backend].missing or "cuda" in backends.BACKENDS[backend].devices:
        pytest.skip(f"{backend} does not serve a CPU here")
    x = torch.ones(300, requires_grad=True)

    def function(x):
        return functional.dropout(x.sin(), 0.5, backend=backend)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.manual_seed(2)
    y = compiled(x)
    torch.manual_seed(2)
    torch.testing.assert_close(y, function(x))
    (grad,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(grad, torch.where(y == 0, 0, 2 * x.detach().cos()))
    assert not torch.equal(compiled(x), y)
