"""Max and average pooling over one to three axes (csrc/pool.h has the definition), and the two
forms of a max pooling index: ``offset``, the tap's number inside its window, and ``flat``, the
position in the input plane.

The package itself keeps the first, one byte per output; PyTorch's users see the second, eight
bytes each.
"""

import math
from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Ints, Pair, Sizes, Tensor

INDEX_DTYPE = {"offset": torch.uint8, "flat": torch.int64}


def flat_from_offset(
    offset: Tensor,
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
) -> Tensor:
    """uint8 window offsets (N, C, out...) as int64 positions in the flat input plane, in the same
    layout."""
    remaining = offset.long()
    flat = torch.zeros_like(remaining)
    for axis in range(len(kernel_size)):
        inner = math.prod(kernel_size[axis + 1 :])
        tap, remaining = remaining // inner, remaining % inner
        place = _window_start(offset, axis, stride, padding) + tap * dilation[axis]
        flat = flat * input_size[axis] + place
    return flat


def offset_from_flat(
    flat: Tensor,
    input_size: Ints,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
) -> Tensor:
    """The inverse of :func:`flat_from_offset`."""
    remaining = flat
    offset = torch.zeros_like(flat)
    for axis in range(len(kernel_size)):
        inner = math.prod(input_size[axis + 1 :])
        place, remaining = remaining // inner, remaining % inner
        offset = (
            offset * kernel_size[axis]
            + (place - _window_start(flat, axis, stride, padding)) // dilation[axis]
        )
    return offset.to(torch.uint8)


def _window_start(index: Tensor, axis: int, stride: Ints, padding: Ints) -> Tensor:
    """Where each output's window begins along a spatial axis, shaped to broadcast against (N, C,
    out...)."""
    axes = index.ndim - 2
    start = torch.arange(index.shape[2 + axis], device=index.device) * stride[axis] - padding[axis]
    return start.reshape([-1 if other == axis else 1 for other in range(axes)])


def with_index(x: Tensor, size: Sizes, form: str) -> Pair:
    """The unwritten maxima (N, C, *size) of the map ``x``, in its layout, and their index, of no
    elements for ``none``."""
    y = layout.resized(x, size)
    if form == "none":
        return y, layout.nothing(x, dtype=torch.uint8)
    return y, layout.resized(x, size, dtype=INDEX_DTYPE[form])


class MaxPoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    kernel_size: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    output_size: Sizes
    index_form: str  # offset, flat, or none

    def results(self) -> Pair:
        """y (N, C, out...) in the layout of x, and the index, likewise, of no elements for
        ``none``."""
        return with_index(self.x, self.output_size, self.index_form)


class MaxPoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C, out...)
    indices: Tensor  # like grad_y, in the layout of x; offset or flat, by its dtype
    input_size: Sizes
    kernel_size: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def results(self) -> Tensor:
        """grad_x (N, C, in...) in the layout of the index."""
        return layout.resized(self.indices, self.input_size, dtype=self.grad_y.dtype)


class AvgPoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    kernel_size: Ints
    stride: Ints
    padding: Ints
    output_size: Sizes
    count_include_pad: bool
    divisor: int  # 0: the window decides

    def results(self) -> Tensor:
        """y (N, C, out...) in the layout of x."""
        return layout.resized(self.x, self.output_size)


class AvgPoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C, out...)
    input_size: Sizes
    kernel_size: Ints
    stride: Ints
    padding: Ints
    count_include_pad: bool
    divisor: int
    channels_last: bool

    def results(self) -> Tensor:
        """grad_x (N, C, in...), channels last as told."""
        shape = (*self.grad_y.shape[:2], *self.input_size)
        return layout.input_grad(self.grad_y, shape, self.channels_last)
