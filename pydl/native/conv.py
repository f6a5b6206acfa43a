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
    if residual is not None or activation != "none":
        raise NotImplementedError("the epilogue")
    y = layout.conv_output(x, weight, stride, padding, dilation)
    library.call("conv_forward", x, weight, bias, y, stride, padding, dilation, groups, on=x)
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
    library.call(
        "conv_grad_input", grad_y, weight, grad_x, stride, padding, dilation, groups, on=grad_y
    )
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
    library.call(
        "conv_grad_weight", grad_y, x, grad_weight, stride, padding, dilation, groups, on=grad_y
    )
    return grad_weight


def conv_grad_bias(library: Library, grad_y: torch.Tensor) -> torch.Tensor:
    grad_bias = layout.empty((grad_y.shape[1],), grad_y)
    library.call("conv_grad_bias", grad_y, grad_bias, on=grad_y)
    return grad_bias
