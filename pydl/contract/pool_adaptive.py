"""Adaptive pooling over one to three axes and pyramid pooling (csrc/pool_adaptive.h has the
definition): how long their bins are, and the two forms of an index in them.

Bin o of ``bins`` along an axis of ``size`` elements is

    [floor(o size / bins), ceil((o + 1) size / bins))

As with windows (pool.py), the place of a maximum is kept as its number inside the bin, one byte,
where the longest bins have at most 256 elements.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Ints, Pair, Sizes, Tensor
from pydl.contract.pool import INDEX_DTYPE, with_index

MOST_LEVELS = 16  # of a pyramid


def longest(size: int, bins: int) -> int:
    """The elements of the longest bin along an axis."""
    rest = size % bins
    return size // bins + (0 if rest == 0 else 1 if bins % rest == 0 else 2)


def _lengths(size: Ints, bins: Ints) -> list[int]:
    return [longest(n, out) for n, out in zip(size, bins, strict=True)]


def split(levels: Ints, axes: int) -> list[list[int]]:
    """The levels of a pyramid, given one after the other, as a list each."""
    return [list(levels[i : i + axes]) for i in range(0, len(levels), axes)]


def index_form(input_size: Ints, levels: Sequence[Ints]) -> str:
    """``offset`` where a byte counts the elements of the longest bins of all levels, else
    ``flat``."""
    most = max(math.prod(_lengths(input_size, level)) for level in levels)
    return "offset" if most <= 256 else "flat"


def flat_from_offset(offset: Tensor, input_size: Ints, output_size: Ints) -> Tensor:
    """uint8 places inside the bins (N, C, out...) as int64 positions in the flat input plane, in
    the same layout."""
    remaining = offset.long()
    flat = torch.zeros_like(remaining)
    lengths = _lengths(input_size, output_size)
    for axis, (n, out) in enumerate(zip(input_size, output_size, strict=True)):
        inner = math.prod(lengths[axis + 1 :])
        tap, remaining = remaining // inner, remaining % inner
        start = torch.arange(out, device=offset.device) * n // out
        shape = [-1 if other == axis else 1 for other in range(len(lengths))]
        flat = flat * n + start.reshape(shape) + tap
    return flat


def offset_from_flat(flat: Tensor, input_size: Ints, output_size: Ints) -> Tensor:
    """The inverse of :func:`flat_from_offset`."""
    remaining = flat
    offset = torch.zeros_like(flat)
    lengths = _lengths(input_size, output_size)
    for axis, (n, out) in enumerate(zip(input_size, output_size, strict=True)):
        inner = math.prod(input_size[axis + 1 :])
        place, remaining = remaining // inner, remaining % inner
        start = torch.arange(out, device=flat.device) * n // out
        shape = [-1 if other == axis else 1 for other in range(len(lengths))]
        offset = offset * lengths[axis] + place - start.reshape(shape)
    return offset.to(torch.uint8)


class AdaptiveAvgPoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    output_size: Sizes

    def results(self) -> Tensor:
        """y (N, C, out...) in the layout of x."""
        return layout.resized(self.x, self.output_size)


class AdaptiveAvgPoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C, out...)
    input_size: Sizes
    channels_last: bool

    def results(self) -> Tensor:
        """grad_x (N, C, in...), channels last as told."""
        shape = (*self.grad_y.shape[:2], *self.input_size)
        return layout.input_grad(self.grad_y, shape, self.channels_last)


class AdaptiveMaxPoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    output_size: Sizes
    index_form: str  # offset, flat, or none

    def results(self) -> Pair:
        """y (N, C, out...) in the layout of x, and the index, likewise, of no elements for
        ``none``."""
        return with_index(self.x, self.output_size, self.index_form)


class AdaptiveMaxPoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C, out...)
    indices: Tensor  # like grad_y, in the layout of x; offset or flat, by its dtype
    input_size: Sizes

    def results(self) -> Tensor:
        """grad_x (N, C, in...) in the layout of the index."""
        return layout.resized(self.indices, self.input_size, dtype=self.grad_y.dtype)


class PyramidPoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    levels: Ints  # the bins along each axis, level after level
    kind: str  # max or avg
    index_form: str  # offset, flat, or none

    def results(self) -> Pair:
        """y (N, C * bins), and the index, likewise; no elements for ``none``."""
        y = self._bins(self.x.dtype)
        if self.index_form == "none":
            return y, layout.nothing(self.x, dtype=torch.uint8)
        return y, self._bins(INDEX_DTYPE[self.index_form])

    def _bins(self, dtype: torch.dtype) -> Tensor:
        x = self.x
        bins = sum(map(math.prod, split(self.levels, x.ndim - 2)))
        shape = (x.shape[0], x.shape[1] * bins)
        return layout.empty(shape, x, dtype=dtype, layout=torch.contiguous_format)


class PyramidPoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C * bins)
    indices: Tensor  # like grad_y; no elements for averages
    input_size: Sizes  # (C, in...)
    levels: Ints
    kind: str
    channels_last: bool

    def results(self) -> Tensor:
        """grad_x (N, C, in...), channels last as told."""
        shape = (self.grad_y.shape[0], *self.input_size)
        return layout.input_grad(self.grad_y, shape, self.channels_last)
