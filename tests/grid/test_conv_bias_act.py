"""Convolution with bias, residual and activation in one pass: every backend against its parts."""

import pytest
import torch
from contract import hold, servers

from pydl import functional, nn
from pydl.ops.bias_act import ACTIVATIONS

T = torch.nn.functional
PARTS = {
    "none": lambda z: z,
    "relu": T.relu,
    "leaky_relu": lambda z: T.leaky_relu(z, 0.2),
    "silu": T.silu,
}
# input, weight, window, channels last
SHAPES = {
    "dense": ((2, 5, 7, 6), (4, 5, 3, 3), {"padding": 1}, False),
    "strided groups": ((1, 6, 8, 7), (4, 3, 3, 2), {"stride": 2, "groups": 2}, False),
    "depthwise": ((2, 8, 6, 5), (8, 1, 3, 3), {"padding": 1, "groups": 8}, False),
    "depthwise, channels last": ((2, 8, 6, 5), (8, 1, 3, 3), {"padding": 1, "groups": 8}, True),
    "channels last": ((2, 8, 5, 5), (3, 8, 1, 1), {}, True),
    "padding='same', lopsided": ((1, 3, 5, 6), (2, 3, 2, 4), {"padding": "same"}, False),
}


def _parts(x, weight, bias, residual, window, activation):
    z = T.conv2d(x, weight, bias, **window)
    return PARTS[activation](z if residual is None else z + residual)


def _run(function, operands):
    leaves = [None if o is None else o.detach().requires_grad_() for o in operands]
    y = function(*leaves)
    wanted = [leaf for leaf in leaves if leaf is not None]
    grad = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).to(y).reshape(y.shape)
    return [y.detach(), *torch.autograd.grad(y, wanted, grad)]


def _operands(shape, dtype, device, residual):
    x_shape, weight_shape, window, last = SHAPES[shape]
    generator = torch.Generator().manual_seed(5)

    def random(*size):
        values = torch.randn(size, generator=generator).to(torch.bfloat16).to(dtype).to(device)
        return (
            values.contiguous(memory_format=torch.channels_last)
            if last and values.ndim == 4
            else values
        )

    x, weight, bias = random(*x_shape), random(*weight_shape), random(weight_shape[0])
    y = T.conv2d(x, weight, bias, **window)
    return [x, weight, bias, random(*y.shape) if residual else None], window


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("residual", (False, True), ids=("alone", "residual"))
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("server", servers("conv_bias_act"))
def test_against_its_parts(server, shape, activation, residual, dtype):
    backend, device = server
    operands, window = _operands(shape, dtype, device, residual)

    def ours(x, weight, bias, residual):
        return functional.conv2d_bias_act(
            x,
            weight,
            bias,
            **window,
            activation=activation,
            negative_slope=0.2,
            residual=residual,
            backend=backend,
        )

    def parts(*operands):
        return _parts(*operands, window, activation)

    exact = _run(parts, [None if o is None else o.double() for o in operands])
    names = ("y", "grad_x", "grad_weight", "grad_bias", "grad_residual")
    for what, *three in zip(
        names, _run(ours, operands), _run(parts, operands), exact, strict=False
    ):
        # What is summed over all pixels cancels.
        terms = 2 * three[2].abs().max().item() if what == "grad_bias" else 0
        hold(*three, what, terms=terms)
    with torch.inference_mode():
        hold(ours(*operands), parts(*operands), exact[0], "y in inference")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("server", servers("conv_bias_act"))
def test_derivatives(server, activation):
    backend, device = server
    shapes = (1, 2, 4, 4), (3, 2, 2, 2), (3,), (1, 3, 3, 3)
    operands = [
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in shapes
    ]

    def function(x, weight, bias, residual):
        return functional.conv2d_bias_act(
            x, weight, bias, activation=activation, residual=residual, backend=backend
        )

    torch.autograd.gradcheck(function, operands, fast_mode=True)
    torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@pytest.mark.parametrize("server", servers("conv_bias_act"))
def test_a_negative_slope_is_differentiated_correctly(server):
    """The sign of y no longer tells that of what went in."""
    backend, device = server
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, device=device)
    y = functional.conv2d_bias_act(
        x, weight, activation="leaky_relu", negative_slope=-0.5, backend=backend
    )
    expected = T.leaky_relu(T.conv2d(x, weight), -0.5)
    torch.testing.assert_close(y, expected)
    ours, theirs = (torch.autograd.grad(out.sum(), x)[0] for out in (y, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("server", servers("conv_bias_act"))
def test_bad_input(server):
    backend, device = server
    x, weight = torch.randn(1, 2, 5, 5, device=device), torch.randn(3, 2, 3, 3, device=device)
    with pytest.raises(ValueError, match="activation must be one of none, relu, leaky_relu, silu"):
        functional.conv2d_bias_act(x, weight, activation="gelu", backend=backend)
    with pytest.raises(RuntimeError, match=r"residual to have the output's shape \[1, 3, 3, 3\]"):
        functional.conv2d_bias_act(x, weight, residual=x, backend=backend)
    with pytest.raises(TypeError, match="residual"):
        functional.conv2d_bias_act(x, weight, residual=1.0, backend=backend)


@pytest.mark.parametrize("mode", ("zeros", "reflect", "circular"))
def test_the_module(mode):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode)
    torch.manual_seed(0)
    ours = nn.ConvBiasAct2d(3, 4, 3, padding=1, padding_mode=mode, activation="leaky_relu")
    assert ours.state_dict().keys() == conv.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), conv.parameters(), strict=True))
    x, residual = torch.randn(2, 3, 6, 6), torch.randn(2, 4, 6, 6)
    torch.testing.assert_close(ours(x, residual), T.leaky_relu(conv(x) + residual))
    assert "activation='leaky_relu', negative_slope=0.01" in repr(ours)
    with pytest.raises(ValueError, match="activation"):
        nn.ConvBiasAct2d(3, 4, 3, activation="tanh")


def test_compiles_in_one_graph():
    layer = nn.ConvBiasAct2d(3, 4, 3, activation="silu")
    x, residual = torch.randn(1, 3, 6, 6), torch.randn(1, 4, 4, 4)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, residual), layer(x, residual))
