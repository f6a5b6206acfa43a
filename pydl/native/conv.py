"""Convolution by the extension; definitions and arguments in ``csrc/conv.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library


def conv_forward(
    library: Library,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
) -> torch.Tensor:
    y = layout.conv_output(x, weight, stride, padding, dilation)
    like = layout.memory_format(y)
    library.call(
        "conv_forward",
        library.operand(x, like),
        library.contiguous(weight),
        bias if bias is None else library.contiguous(bias),
        residual if residual is None else library.operand(residual, like),
        y,
        stride,
        padding,
        dilation,
        groups,
        activation,
        slope,
        on=x,
    )
    return y


def conv_grad_input(
    library: Library,
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    grad_x = layout.conv_input(grad_y, weight, input_size, groups)
    operands = library.operand(grad_y, layout.memory_format(grad_x)), library.contiguous(weight)
    library.call("conv_grad_input", *operands, grad_x, stride, padding, dilation, groups, on=grad_y)
    return grad_x


def conv_grad_weight(
    library: Library,
    grad_y: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    grad_weight = layout.conv_weight(grad_y, x, kernel_size, groups)
    like = layout.memory_format(x)
    operands = library.operand(grad_y, like), library.operand(x, like)
    library.call(
        "conv_grad_weight", *operands, grad_weight, stride, padding, dilation, groups, on=grad_y
    )
    return grad_weight


def conv_grad_bias(library: Library, grad_y: torch.Tensor) -> torch.Tensor:
    grad_bias = layout.empty((grad_y.shape[1],), grad_y)
    operand = library.operand(grad_y, layout.memory_format(grad_y))
    library.call("conv_grad_bias", operand, grad_bias, on=grad_y)
    return grad_bias
