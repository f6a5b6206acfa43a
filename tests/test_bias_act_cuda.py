"""The CUDA kernels of bias, residual and activation against the reference."""

import pytest
import torch
from contract import DTYPES, hold, laid_out

from pydl import backends, layout, native
from pydl.aten import bias_act as theirs
from pydl.reference import bias_act as exact

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(backends.BACKENDS["cuda"].missing is not None, reason="no CUDA kernels"),
]

SHAPES = (
    # shape, how x lies, how the residual lies
    ((2, 5, 7), "contiguous", "contiguous"),
    ((3, 17, 5, 6), "contiguous", "channels_last"),
    ((3, 17, 5, 6), "channels_last", "contiguous"),
    ((1, 3, 4, 3, 2), "sliced", "channels_last"),
    ((0, 3, 4, 4), "contiguous", "contiguous"),
)
ACTIVATIONS = (("none", 0.0), ("relu", 0.0), ("leaky_relu", 0.125), ("silu", 0.0))
DEVICE = backends.BACKENDS["cuda"].devices[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation, slope", ACTIVATIONS)
def test_against_reference(activation, slope, dtype):
    library = native.library("cuda")
    for shape, view, residual_view in SHAPES:
        x = laid_out(torch.randn(shape).to(dtype).to(DEVICE), view)
        residual = laid_out(torch.randn(shape).to(dtype).to(DEVICE), residual_view)
        bias = torch.randn(shape[1]).to(dtype).to(DEVICE)
        for b, r in ((bias, residual), (None, residual), (bias, None), (None, None)):
            y = layout.empty(shape, x)
            library.call("bias_act_forward", x, b, r, y, activation, slope, on=x)
            double = [None if t is None else t.double() for t in (x, b, r)]
            other = theirs.bias_act_forward(x, b, r, activation, slope)
            hold(y, other, exact.bias_act_forward(*double, activation, slope), "y")

        saved, grad_y = x, residual
        grad_x = layout.empty(shape, x)
        library.call("bias_act_backward", grad_y, saved, grad_x, activation, slope, on=x)
        wanted = exact.bias_act_backward(grad_y.double(), saved.double(), activation, slope)
        other = theirs.bias_act_backward(grad_y, saved, activation, slope)
        hold(grad_x, other, wanted, "grad_x")


@pytest.mark.parametrize("activation, slope", ACTIVATIONS)
def test_edges(activation, slope):
    """NaN stays NaN, a sum of 0 belongs to the side the contract says, and a gradient that relu
    stops is 0 even where it is infinite."""
    library = native.library("cuda")
    x = torch.tensor([[-2.0, -0.0, 0.0, 3.0, torch.nan]], device=DEVICE)[None]
    y, grad_x = torch.empty_like(x), torch.empty_like(x)
    library.call("bias_act_forward", x, None, None, y, activation, slope, on=x)
    torch.testing.assert_close(
        y, exact.bias_act_forward(x, None, None, activation, slope), equal_nan=True
    )
    assert activation != "relu" or not torch.signbit(y[..., 1]).any()
    grad_y = torch.full_like(x, torch.inf if activation == "relu" else 2.0)
    library.call("bias_act_backward", grad_y, x, grad_x, activation, slope, on=x)
    torch.testing.assert_close(
        grad_x, exact.bias_act_backward(grad_y, x, activation, slope), equal_nan=True
    )


def test_in_place_and_refusals():
    library = native.library("cuda")
    x = torch.randn(2, 3, 300, device=DEVICE)
    wanted = exact.bias_act_forward(x, None, None, "relu", 0.0)
    library.call("bias_act_forward", x, None, None, x, "relu", 0.0, on=x)
    assert torch.equal(x, wanted)
    with pytest.raises(ValueError, match="none, relu, leaky_relu or silu, got gelu"):
        library.call("bias_act_forward", x, None, None, x, "gelu", 0.0, on=x)
    with pytest.raises(ValueError, match="a residual of the result's size"):
        library.call("bias_act_forward", x, None, x[:1], x, "relu", 0.0, on=x)
