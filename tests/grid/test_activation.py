"""relu and leaky_relu of any shape: what bias_act's kernels (test_bias_act.py) do alone."""

import pytest
import torch
from contract import DTYPES, hold, laid_out, run, servers

from pydl import backends, functional, layout, nn

# shape, layout
SHAPES = (
    ((), "contiguous"),
    ((19,), "contiguous"),
    ((5, 7), "contiguous"),
    ((5, 7), "sliced"),
    ((2, 3, 5), "contiguous"),
    ((2, 17, 5, 6), "channels_last"),
    ((2, 3, 5, 6), "offset"),
    ((2, 5, 3, 2, 4), "channels_last"),
    ((2, 3, 2, 2, 3, 2), "contiguous"),
    ((0, 3), "contiguous"),
)
FUNCTIONS = (("relu", ()), ("leaky_relu", (0.125,)), ("leaky_relu", (-0.5,)))


def differentiated(where, name, x, grad, *arguments, **keywords):
    """The result of ``where.name(x, ...)`` and the gradient of x."""
    function = getattr(where, name)
    return run(lambda x: function(x, *arguments, **keywords), [x], lambda y: grad)


SLOPES = tuple(f"{name}{arguments}" for name, arguments in FUNCTIONS)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("function", FUNCTIONS, ids=SLOPES)
@pytest.mark.parametrize("server", servers("activation"))
def test_against_pytorch(server, function, dtype):
    backend, device = server
    name, arguments = function
    for shape, view in SHAPES:
        x = laid_out(torch.randn(shape).to(dtype).to(device), view)
        grad = laid_out(torch.randn(shape).to(dtype).to(device), "contiguous")

        results = [
            differentiated(functional, name, x, grad, *arguments, backend=backend),
            differentiated(torch.nn.functional, name, x, grad, *arguments),
            differentiated(torch.nn.functional, name, x.double(), grad.double(), *arguments),
        ]
        for what, *three in zip(("y", "grad_x"), *results, strict=True):
            hold(*three, f"{what} of {shape}")
        if backend not in ("aten", "reference"):
            assert layout.memory_format(results[0][0]) == layout.memory_format(x)


@pytest.mark.parametrize("function", FUNCTIONS, ids=SLOPES)
@pytest.mark.parametrize("server", servers("activation"))
def test_derivatives(server, function):
    backend, device = server
    name, arguments = function
    x = torch.randn(3, 7, dtype=torch.float64, device=device, requires_grad=True)

    def call(x):
        return getattr(functional, name)(x, *arguments, backend=backend)

    torch.autograd.gradcheck(call, x, fast_mode=True)
    torch.autograd.gradgradcheck(call, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("activation"))
def test_in_place(server):
    """The input is written over, and what the gradient needs is not what was there."""
    backend, device = server
    for name, arguments in FUNCTIONS[:2]:
        leaf = torch.randn(2, 3, 9, device=device, requires_grad=True)
        expected = differentiated(
            torch.nn.functional, name, leaf, torch.ones(2, 3, 9).to(leaf), *arguments
        )
        x = leaf.clone()
        y = getattr(functional, name)(x, *arguments, inplace=True, backend=backend)
        assert y is x
        torch.testing.assert_close(y.detach(), expected[0])
        (grad,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        torch.testing.assert_close(grad, expected[1])
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            getattr(functional, name)(leaf, *arguments, inplace=True, backend=backend)


def test_training_keeps_one_tensor():
    x, saved = torch.randn(2, 3, 9, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = functional.relu(x, backend="cpu")
    assert [t.data_ptr() for t in saved] == [y.data_ptr()]


def test_layers_and_bad_input():
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(nn.ReLU(backend="cpu")(x), torch.relu(x))
    leaky = torch.nn.functional.leaky_relu(x, 0.3)
    torch.testing.assert_close(nn.LeakyReLU(0.3, backend="cpu")(x), leaky)
    assert nn.ReLU(inplace=True, backend="cpu")(x) is x
    with pytest.raises(TypeError, match="argument 'input' must be Tensor, not list"):
        functional.relu([1.0], backend="cpu")
    assert torch.equal(functional.relu(torch.arange(-2, 3)), torch.relu(torch.arange(-2, 3)))
    with pytest.raises(RuntimeError, match=r"got torch\.int64"):
        functional.relu(torch.arange(-2, 3), backend="cpu")


@pytest.mark.parametrize("backend", ("cpu", "reference", "triton"))
def test_compiles_whole(backend):
    if backends.BACKENDS[backend].missing or "cuda" in backends.BACKENDS[backend].devices:
        pytest.skip(f"{backend} does not serve a CPU here")
    x = torch.randn(30, requires_grad=True)

    def function(x):
        return functional.leaky_relu(functional.relu(x.sin(), backend=backend), backend=backend)

    y = torch.compile(function, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, function(x))
    torch.testing.assert_close(*(torch.autograd.grad(r.sum(), x)[0] for r in (y, function(x))))
