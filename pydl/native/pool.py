"""Max and average pooling by the extension; definitions and arguments in ``csrc/pool.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library

_INDEX_DTYPE = {"offset": torch.uint8, "flat": torch.int64}


def max_pool_forward(
    library: Library,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_size: Sequence[int],
    index: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    y = layout.resized(x, output_size)
    taken = layout.resized(x, output_size, dtype=_INDEX_DTYPE[index]) if index != "none" else None
    operand = library.operand(x, layout.memory_format(x))
    library.call(
        "max_pool_forward", operand, y, taken, kernel_size, stride, padding, dilation, on=x
    )
    return y, layout.empty((0,), x, dtype=torch.uint8) if taken is None else taken


def max_pool_backward(
    library: Library,
    grad_y: torch.Tensor,
    index: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    like = layout.memory_format(index)
    grad_x = layout.resized(index, input_size, dtype=grad_y.dtype)
    operands = library.operand(grad_y, like), library.operand(index, like)
    library.call(
        "max_pool_backward", *operands, grad_x, kernel_size, stride, padding, dilation, on=grad_y
    )
    return grad_x


def avg_pool_forward(
    library: Library,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_size: Sequence[int],
    count_include_pad: bool,
    divisor: int,
) -> torch.Tensor:
    y = layout.resized(x, output_size)
    operand = library.operand(x, layout.memory_format(x))
    library.call(
        "avg_pool_forward",
        operand,
        y,
        kernel_size,
        stride,
        padding,
        count_include_pad,
        divisor,
        on=x,
    )
    return y


def avg_pool_backward(
    library: Library,
    grad_y: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
    divisor: int,
    channels_last: bool,
) -> torch.Tensor:
    grad_x = layout.input_grad(grad_y, (*grad_y.shape[:2], *input_size), channels_last)
    operand = library.operand(grad_y, layout.chosen(channels_last, grad_y.ndim))
    library.call(
        "avg_pool_backward",
        operand,
        grad_x,
        kernel_size,
        stride,
        padding,
        count_include_pad,
        divisor,
        on=grad_y,
    )
    return grad_x
