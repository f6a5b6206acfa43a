"""Locally connected layers by the extension; definitions in ``csrc/local.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library

_CONTIGUOUS = torch.contiguous_format


def local_forward(
    library: Library,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    y = layout.local_output(x, weight)
    operands = library.operand(x, _CONTIGUOUS), library.operand(weight, _CONTIGUOUS)
    # The extension reads a bias per position as a map of one image.
    bias = None if bias is None else library.operand(bias, _CONTIGUOUS).unsqueeze(0)
    window = kernel_size, stride, padding, dilation
    library.call("local_forward", *operands, bias, y, *window, on=x)
    return y


def local_grad_input(
    library: Library,
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    grad_x = layout.local_input(grad_y, weight, input_size, kernel_size)
    operands = library.operand(grad_y, _CONTIGUOUS), library.operand(weight, _CONTIGUOUS)
    window = kernel_size, stride, padding, dilation
    library.call("local_grad_input", *operands, grad_x, *window, on=grad_y)
    return grad_x


def local_grad_weight(
    library: Library,
    grad_y: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    grad_weight = layout.local_weight(grad_y, x, kernel_size)
    operands = library.operand(grad_y, _CONTIGUOUS), library.operand(x, _CONTIGUOUS)
    window = kernel_size, stride, padding, dilation
    library.call("local_grad_weight", *operands, grad_weight, *window, on=grad_y)
    return grad_weight
