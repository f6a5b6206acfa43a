"""Convolution by the extension; definitions and arguments in ``csrc/conv.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library


def allows_tf32(x: torch.Tensor) -> bool:
    """Whether products of float32 may be rounded to tf32 here: PyTorch's own switch for
    convolutions on a GPU."""
    return x.is_cuda and torch.backends.cudnn.allow_tf32


def _precision(library: Library, x: torch.Tensor) -> tuple[bool, ...]:
    """What CUDA's functions take beside the CPU's arguments."""
    return (allows_tf32(x),) if library.name == "cuda" else ()


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
    window = stride, padding, dilation, groups
    library.call(
        "conv_forward",
        *(x, weight, bias, residual, y),
        *window,
        activation,
        slope,
        *_precision(library, x),
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
    window = stride, padding, dilation, groups, *_precision(library, grad_y)
    library.call("conv_grad_input", grad_y, weight, grad_x, *window, on=grad_y)
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
    window = stride, padding, dilation, groups, *_precision(library, x)
    operands, parts = (grad_y, x, grad_weight), ()
    if library.name == "cuda":  # partial sums want room
        wanted = library.functions.conv_grad_weight_parts(*operands, *window)
        sums = torch.float64 if x.dtype == torch.float64 else torch.float32
        parts = (layout.empty((wanted,), x, dtype=sums) if wanted else None,)
    library.call("conv_grad_weight", *operands, *window, *parts, on=grad_y)
    return grad_weight


def conv_grad_bias(library: Library, grad_y: torch.Tensor) -> torch.Tensor:
    grad_bias = layout.empty((grad_y.shape[1],), grad_y)
    library.call("conv_grad_bias", grad_y, grad_bias, on=grad_y)
    return grad_bias
