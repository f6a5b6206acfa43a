"""PyTorch's pooling and its gradients, for one to three spatial axes."""

from collections.abc import Callable, Sequence

import torch

from pydl import layout
from pydl.contract.pool import (
    AvgPoolBackward,
    AvgPoolForward,
    MaxPoolBackward,
    MaxPoolForward,
    flat_from_offset,
    offset_from_flat,
)
from pydl.shapes import conv_size

aten = torch.ops.aten


def ceil_mode(
    input_size: Sequence[int],
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Whether only ceil mode gives this output size."""
    floor = conv_size(input_size, kernel_size, stride, padding, dilation)
    return floor != list(output_size)


def max_pool_forward(call: MaxPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    x, kernel_size, stride, padding, dilation, output_size, index = call
    axes = len(kernel_size)
    pool: Callable[..., tuple[torch.Tensor, torch.Tensor]] = (
        torch.nn.functional.max_pool1d,
        torch.nn.functional.max_pool2d,
        torch.nn.functional.max_pool3d,
    )[axes - 1]
    rounds_up = ceil_mode(x.shape[2:], output_size, kernel_size, stride, padding, dilation)
    y, flat = pool(x, kernel_size, stride, padding, dilation, rounds_up, return_indices=True)
    if index == "flat":
        return y, flat
    if index == "offset":
        return y, offset_from_flat(flat, x.shape[2:], kernel_size, stride, padding, dilation)
    return y, x.new_empty(0, dtype=torch.uint8)


def max_pool_backward(call: MaxPoolBackward) -> torch.Tensor:
    grad_y, index, input_size, kernel_size, stride, padding, dilation = call
    flat = index
    if index.dtype == torch.uint8:
        flat = flat_from_offset(index, input_size, kernel_size, stride, padding, dilation)
    rounds_up = ceil_mode(input_size, grad_y.shape[2:], kernel_size, stride, padding, dilation)
    if len(kernel_size) == 1:  # PyTorch's 1-D pooling is its 2-D pooling with one row
        one_row = [[1, *input_size], [1, *kernel_size], [1, *stride], [0, *padding], [1, *dilation]]
        call = MaxPoolBackward(grad_y.unsqueeze(2), flat.unsqueeze(2), *one_row)
        return max_pool_backward(call).squeeze(2)
    backward = (
        aten.max_pool2d_with_indices_backward
        if len(kernel_size) == 2
        else aten.max_pool3d_with_indices_backward
    )
    x = grad_y.new_empty(1).expand(
        *grad_y.shape[:2], *input_size
    )  # only its shape and layout count
    x = layout.ordered(x, layout.channels_last(index))
    return backward(grad_y, x, kernel_size, stride, padding, dilation, rounds_up, flat)


def avg_pool_forward(call: AvgPoolForward) -> torch.Tensor:
    x, kernel_size, stride, padding, output_size, count_include_pad, divisor = call
    rounds_up = ceil_mode(x.shape[2:], output_size, kernel_size, stride, padding, [1] * len(stride))
    if len(kernel_size) == 1:
        one_row = [[1, *kernel_size], [1, *stride], [0, *padding]]
        return aten.avg_pool2d(
            x.unsqueeze(2), *one_row, rounds_up, count_include_pad, divisor or None
        ).squeeze(2)
    pool = aten.avg_pool2d if len(kernel_size) == 2 else aten.avg_pool3d
    return pool(x, kernel_size, stride, padding, rounds_up, count_include_pad, divisor or None)


def avg_pool_backward(call: AvgPoolBackward) -> torch.Tensor:
    grad_y, input_size, kernel_size = call.grad_y, call.input_size, call.kernel_size
    stride, padding = call.stride, call.padding
    rounds_up = ceil_mode(
        input_size, grad_y.shape[2:], kernel_size, stride, padding, [1] * len(stride)
    )
    if len(kernel_size) == 1:
        one_row = [1, *input_size], [1, *kernel_size], [1, *stride], [0, *padding]
        divide = call.count_include_pad, call.divisor, call.channels_last
        call = AvgPoolBackward(grad_y.unsqueeze(2), *one_row, *divide)
        return avg_pool_backward(call).squeeze(2)
    x = grad_y.new_empty((*grad_y.shape[:2], *input_size))  # only its shape counts
    backward = aten.avg_pool2d_backward if len(kernel_size) == 2 else aten.avg_pool3d_backward
    return backward(
        grad_y,
        x,
        kernel_size,
        stride,
        padding,
        rounds_up,
        call.count_include_pad,
        call.divisor or None,
    )
