"""Softmax and log softmax: every backend against the reference, and the reference against PyTorch
and by hand."""

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
    servers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional, layout, nn

CASES = (
    Case("rows of ten classes", (6, 10), {"dim": 1}),
    Case("rows longer than any block", (3, 5000), {"dim": -1}),
    Case("rows shorter than any vector", (7, 3), {"dim": 1}),
    Case("one class", (4, 1, 3), {"dim": 1}),
    Case("pixels of a map", (2, 21, 9, 11), {"dim": 1}),
    Case("pixels, more than a block of any kernel", (1, 5, 40, 41), {"dim": 1}),
    Case("more classes than a block of any kernel", (1, 260, 3, 5), {"dim": 1}),
    Case("pixels, channels last", (2, 21, 5, 7), {"dim": 1}, "channels_last"),
    Case("rows of a channels-last map", (2, 5, 6, 7), {"dim": 3}, "channels_last"),
    Case("columns of a channels-last map", (2, 5, 6, 7), {"dim": 2}, "channels_last"),
    Case("images of a channels-last map", (3, 5, 6, 7), {"dim": 0}, "channels_last"),
    Case("voxels", (2, 6, 3, 4, 5), {"dim": 1}, "channels_last"),
    Case("across the batch", (5, 7), {"dim": 0}),
    Case("six axes", (2, 3, 2, 3, 2, 2), {"dim": 3}),
    Case("a vector", (19,), {"dim": 0}),
    Case("a number", (), {"dim": -1}),
    Case("a slice of a larger map", (2, 6, 5, 3), {"dim": 1}, "sliced"),
    Case("an odd storage offset", (2, 6, 5, 3), {"dim": 1}, "offset"),
    Case("an expanded gradient", (2, 6, 5, 3), {"dim": 1}, "expanded"),
    Case("an empty batch", (0, 6, 4), {"dim": 1}),
    Case("no classes", (3, 0, 4), {"dim": 1}),
    Case("large values", (3, 9, 4), {"dim": 1}, values="large"),
    Case("NaN spreads to its column and no further", (3, 9, 17), {"dim": 1}, values="nan"),
    Case("NaN spreads to its row and no further", (9, 17), {"dim": 1}, values="nan"),
    Case("columns of -inf alone", (2, 5, 4), {"dim": 1}, values="minus infinity"),
)
FUNCTIONS = ("softmax", "log_softmax")


def differentiated(where, name, x, grad_of, *arguments, **keywords):
    """The result of ``where.name(x, ...)`` and the gradient of x."""
    function = getattr(where, name)
    return run(lambda x: function(x, *arguments, **keywords), [x], grad_of)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("softmax"))
def test_against_reference(server, case, dtype):
    backend, device = server
    x = operand(case, dtype, device)

    def grad(y):
        return gradient(case, y)

    for name in FUNCTIONS:
        three = (
            differentiated(functional, name, x, grad, **case.arguments, backend=backend),
            differentiated(torch.nn.functional, name, x, grad, **case.arguments),
            differentiated(
                functional, name, x.double(), grad, **case.arguments, backend="reference"
            ),
        )
        for what, *results in zip(("y", "grad_x"), *three, strict=True):
            hold(*results, f"{what} of {name}")
        assert three[0][0].stride() == three[1][0].stride()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_pytorch_in_float64(case):
    x = operand(case, torch.float64, "cpu")

    def grad(y):
        return gradient(case, y)

    for name in FUNCTIONS:
        ours = differentiated(functional, name, x, grad, **case.arguments, backend="reference")
        theirs = differentiated(torch.nn.functional, name, x, grad, **case.arguments)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("server", servers("softmax"))
def test_by_hand(server):
    """The lectures' example, and a score that shifts all classes alike."""
    backend, device = server
    x = torch.tensor([1.2, 0.9, 0.4], device=device)
    y = functional.softmax(x, 0, backend=backend)
    assert y.tolist() == pytest.approx([0.46, 0.34, 0.20], abs=0.006)
    torch.testing.assert_close(
        functional.softmax(x + 1000, 0, backend=backend), y, rtol=1e-4, atol=0
    )
    logs = functional.log_softmax(x, 0, backend=backend)
    torch.testing.assert_close(logs.exp(), y)


@pytest.mark.parametrize("server", servers("softmax"))
@pytest.mark.parametrize("shape", ((2, 37), (2, 37, 18)), ids=("rows", "columns"))
def test_what_is_masked_with_minus_infinity_is_exactly_0(server, shape):
    backend, device = server
    x = torch.randn(shape, device=device)
    x[:, 5:30] = -torch.inf
    y = functional.softmax(x, 1, backend=backend)
    assert (y[:, 5:30] == 0).all() and torch.allclose(y.sum(1), torch.ones_like(y.sum(1)))
    logs = functional.log_softmax(x, 1, backend=backend)
    assert (logs[:, 5:30] == -torch.inf).all()
    x[:, 3] = torch.inf
    assert functional.softmax(x, 1, backend=backend).isnan().all() or backend == "aten"


@pytest.mark.parametrize("server", servers("softmax"))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives(server, name):
    backend, device = server
    for dim, shape in ((1, (2, 5, 3)), (2, (2, 2, 4))):
        x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)

        def function(x, dim=dim):
            return getattr(functional, name)(x, dim, backend=backend)

        torch.autograd.gradcheck(function, x, fast_mode=True)
        torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("softmax"))
@pytest.mark.parametrize("log", (False, True))
def test_forward_and_backward_of_different_backends_fit(server, log):
    backend, device = server
    x, grad_y = torch.randn(2, 3, 6, 5, device=device), torch.randn(2, 3, 6, 5, device=device)
    for other in ("reference", "aten"):
        for dim in (1, 3):
            y = backends.function(backend, "softmax_forward")(x, dim, log)
            expected = backends.function(other, "softmax_forward")(x, dim, log)
            torch.testing.assert_close(y, expected)
            torch.testing.assert_close(
                backends.function(backend, "softmax_backward")(grad_y, expected, dim, log),
                backends.function(other, "softmax_backward")(grad_y, y, dim, log),
            )


@pytest.mark.parametrize("server", servers("softmax"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    x, grad_y = torch.randn(2, 6, 3, 5, device=device), torch.randn(2, 6, 3, 5, device=device)
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        y = torch.ops.pydl.softmax_forward(map, 1, True, backend)
        opcheck(torch.ops.pydl.softmax_forward.default, (map, 1, True, backend))
        opcheck(torch.ops.pydl.softmax_backward.default, (grad_y, y, 1, True, backend))


@pytest.mark.parametrize("server", servers("softmax"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 19), min_size=1, max_size=4),
    dim=st.integers(0, 3),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
    name=st.sampled_from(FUNCTIONS),
)
def test_any_shape(server, shape, dim, view, name):
    backend, device = server
    case = Case("any", tuple(shape), view=view)
    x = operand(case, torch.float32, device)
    dim %= len(shape)
    ours, theirs = (
        differentiated(where, name, x, lambda y: gradient(case, y), dim, **more)
        for where, more in ((functional, {"backend": backend}), (torch.nn.functional, {}))
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set(isa):
    with instruction_set(isa):
        for dtype in DTYPES:
            for case in CASES:
                test_against_reference(("cpu", "cpu"), case, dtype)
        test_what_is_masked_with_minus_infinity_is_exactly_0(("cpu", "cpu"), (2, 37, 18))


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_results_past_the_caches(isa):
    """Results of 16 MB and more are streamed where their rows begin lines of the cache."""
    with instruction_set(isa):
        for shape in ((1, 4, 1 << 20), (1, 4, (1 << 20) + 5)):
            x = torch.randn(shape)
            for name in FUNCTIONS:
                ours = differentiated(functional, name, x, torch.sin, 1, backend="cpu")
                theirs = differentiated(torch.nn.functional, name, x, torch.sin, 1)
                for mine, other in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("shape", ((700, 100), (3, 30, 1500)), ids=("rows", "columns"))
def test_the_same_bits_on_every_run_and_thread_count(shape):
    x, seen, threads = torch.randn(shape), [], torch.get_num_threads()
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        for name in FUNCTIONS:
            seen.append(differentiated(functional, name, x, torch.sin, 1, backend="cpu"))
    torch.set_num_threads(threads)
    for again in (seen[2:4], seen[4:]):
        for first, other in zip(seen[:2], again, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_no_hidden_copies(monkeypatch):
    x = torch.randn(2, 5, 6, 7)

    def no_copy(tensor, like=None):
        assert tensor.is_contiguous(memory_format=like), "a hidden copy"
        return tensor

    monkeypatch.setattr(layout, "dense", no_copy)
    for dim in range(4):
        leaf = x.detach().requires_grad_()
        y = functional.softmax(leaf, dim, backend="cpu")
        y.backward(torch.randn_like(y))
        assert leaf.grad.is_contiguous()


def test_dtype_converts_the_input_first():
    x = torch.randn(3, 5).half()
    for backend in ("cpu", "reference", "auto"):
        y = functional.softmax(x, 1, dtype=torch.float32, backend=backend)
        assert y.dtype == torch.float32
        torch.testing.assert_close(y, torch.softmax(x, 1, dtype=torch.float32))
    integers = torch.arange(6).reshape(2, 3)
    y = functional.log_softmax(integers, 1, dtype=torch.float64, backend="cpu")
    torch.testing.assert_close(y, torch.log_softmax(integers, 1, dtype=torch.float64))


def test_layers():
    x = torch.randn(2, 5, 6, 7)
    for backend in (None, "cpu"):
        torch.testing.assert_close(nn.Softmax2d(backend=backend)(x), torch.nn.Softmax2d()(x))
        torch.testing.assert_close(nn.Softmax2d(backend=backend)(x[0]), torch.nn.Softmax2d()(x[0]))
    with pytest.raises(ValueError, match="expected input to be 3D or 4D, got 2D"):
        nn.Softmax2d()(x[0, 0])
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmax"):
        torch.testing.assert_close(nn.Softmax()(x), torch.softmax(x, 1))


@pytest.mark.parametrize("backend", ("cpu", "reference", "triton"))
def test_compiles_whole(backend):
    if backends.BACKENDS[backend].missing or "cuda" in backends.BACKENDS[backend].devices:
        pytest.skip(f"{backend} does not serve a CPU here")
    x = torch.randn(3, 7, 4, 4, requires_grad=True)

    def function(x):
        return functional.softmax(x, 1, backend=backend).sin() + functional.log_softmax(
            x, -1, backend=backend
        )

    y = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, function(x))
    grads = [torch.autograd.grad(result.square().sum(), x)[0] for result in (y, function(x))]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([1.0], 0), TypeError, "argument 'input' must be Tensor, not list"),
        ((torch.randn(4, 4), 2), IndexError, r"expected to be in range of \[-2, 1\], but got 2"),
        ((torch.randn(4, 4), 1.5), TypeError, "argument 'dim' must be int, not float"),
        ((torch.ones(4, 4, dtype=torch.int64), 1), RuntimeError, "got torch.int64"),
    ],
)
def test_bad_input(arguments, error, message):
    for backend in ("reference", "cpu"):
        for name in FUNCTIONS:
            with pytest.raises(error, match=message):
                getattr(functional, name)(*arguments, backend=backend)
