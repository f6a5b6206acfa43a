"""Locally connected layers by the extension; definitions and arguments in ``csrc/local.h``."""

import math
from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library


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
    y = _contiguous((x.shape[0], weight.shape[0], *weight.shape[2:]), x)
    library.call(
        "local_forward",
        library.contiguous(x),
        library.contiguous(weight),
        bias if bias is None else library.contiguous(bias).unsqueeze(0),
        y,
        kernel_size,
        stride,
        padding,
        dilation,
        on=x,
    )
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
    channels = weight.shape[1] // math.prod(kernel_size)
    grad_x = _contiguous((grad_y.shape[0], channels, *input_size), grad_y)
    operands = library.contiguous(grad_y), library.contiguous(weight)
    library.call(
        "local_grad_input", *operands, grad_x, kernel_size, stride, padding, dilation, on=grad_y
    )
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
    shape = grad_y.shape[1], x.shape[1] * math.prod(kernel_size), *grad_y.shape[2:]
    grad_weight = _contiguous(shape, x)
    operands = library.contiguous(grad_y), library.contiguous(x)
    library.call(
        "local_grad_weight", *operands, grad_weight, kernel_size, stride, padding, dilation, on=x
    )
    return grad_weight


def _contiguous(shape: Sequence[int], like: torch.Tensor) -> torch.Tensor:
    return layout.empty(shape, like, layout=torch.contiguous_format)
