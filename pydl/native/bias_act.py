"""Bias, residual and activation by the extension; definitions in ``csrc/bias_act.h``."""

import torch

from pydl import layout
from pydl.native import Library


def bias_act_forward(
    library: Library,
    x: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    slope: float,
) -> torch.Tensor:
    like = layout.memory_format(x)
    y = layout.empty(x.shape, x)
    residual = None if residual is None else library.operand(residual, like)
    bias = None if bias is None else library.contiguous(bias)
    x = library.operand(x, like)
    library.call("bias_act_forward", x, bias, residual, y, activation, slope, on=x)
    return y


def bias_act_backward(
    library: Library, grad_y: torch.Tensor, saved: torch.Tensor, activation: str, slope: float
) -> torch.Tensor:
    like = layout.memory_format(saved)
    grad_x = layout.empty(saved.shape, saved)
    operands = library.operand(grad_y, like), library.operand(saved, like)
    library.call("bias_act_backward", *operands, grad_x, activation, slope, on=grad_y)
    return grad_x
