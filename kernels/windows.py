"""What the kernels of pooling share: the taps of a window, what an average is divided by, and the
cells of a gradient.

A cell is a block of neighbouring elements of grad_x that no stride parts: the same windows cover
all of it, each with a tap that differs by where the element stands in the cell. So each window's
gradient is loaded once for a cell and not once for an element, and with a cell as large as the
stride every tap is a constant of the compiled kernel.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton.language as tl

from . import runtime
from .elements import as_offset, divide, filled, inline, within

# Elements of the largest cell: each is a sum that a lane keeps.
LARGEST_CELL = 8


def inside(
    x: torch.Tensor,
    out: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1, 1),
) -> bool:
    """Whether no window reaches beyond the map: then taps are not looked at."""
    axes = zip(x.shape[2:], out, kernel_size, stride, dilation, strict=False)
    return not any(padding) and all(
        (count - 1) * step + (taps - 1) * gap < size for size, count, taps, step, gap in axes
    )


def cells(
    size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1, 1),
) -> tuple[list[int], dict[str, Any]]:
    """The cells of each axis of grad_x; and arguments of a gradient's kernel: a cell's elements,
    and the windows that may cover one, of which each reaches (kernel - 1) * dilation + 1
    elements."""
    cell = list(stride) if math.prod(stride) <= LARGEST_CELL else [1] * len(stride)
    count = [-(-(n + p % c) // c) for n, p, c in zip(size, padding, cell, strict=True)]
    reach = [(taps - 1) * gap + 1 for taps, gap in zip(kernel_size, dilation, strict=False)]
    over = [-(-length // step) for length, step in zip(reach, stride, strict=True)]
    return count, {
        "CELL": runtime.spread(cell, 1),
        "CANDIDATES": runtime.spread(over, 1),
        "UNROLL": runtime.unroll(math.prod(over)),
    }


def cell_tile(grad_x: torch.Tensor, count: Sequence[int], cell: Sequence[int]) -> dict[str, Any]:
    """runtime.tile of the cells, of as many elements in all as lanes keep sums of."""
    each = math.prod(cell)
    elements = 1024 if each == 1 else max(128, min(2048 // grad_x.element_size(), 8192 // each))
    return runtime.tile(grad_x, elements, size=count)


@inline
def apart(d, h, w, stride):
    """How far apart so many steps of each axis lie in a map of these strides. In 64 bits, so that
    it stays what is added to a pointer and, where it is a constant, a part of the instruction."""
    at = as_offset(d, True) * stride[2] + as_offset(h, True) * stride[3]
    return at + as_offset(w, True) * stride[4]


@inline
def tap_of(
    tap,
    start_d,
    start_h,
    start_w,
    mask,
    shape,
    stride,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    INSIDE: tl.constexpr,
):
    """How far from the corner of its window a tap lies, and whether it is inside."""
    d = tap // (KERNEL[1] * KERNEL[2]) * DILATION[0]
    h = tap // KERNEL[2] % KERNEL[1] * DILATION[1]
    w = tap % KERNEL[2] * DILATION[2]
    if not INSIDE:
        mask = mask & within(start_d + d, shape[2]) & within(start_h + h, shape[3])
        mask = mask & within(start_w + w, shape[4])
    return apart(d, h, w, stride), mask


@inline
def first_tap(start, size, KERNEL: tl.constexpr, DILATION: tl.constexpr):
    """The first tap of an axis that is inside, and whether one is."""
    tap = tl.maximum((DILATION - 1 - start) // DILATION, 0)
    tap = tl.where(start >= 0, 0, tap)
    return tap, (tap < KERNEL) & (start + tap * DILATION < size)


@inline
def cell_at(cell, CELL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr):
    """Of a cell of one axis: its first element; the last window that may cover it; and with which
    reach that does."""
    first = cell * CELL - PADDING % CELL
    if CELL == STRIDE:
        return first, cell + PADDING // CELL, 0
    else:
        return first, (first + PADDING) // STRIDE, (first + PADDING) % STRIDE


@inline
def window_at(
    which,
    last_d,
    last_h,
    last_w,
    mask,
    windows,
    CANDIDATES: tl.constexpr,
):
    """The which-th of the windows that may cover a cell: how many windows of each axis it lies
    before the last, and whether it is one."""
    d = CANDIDATES[0] - 1 - which // (CANDIDATES[1] * CANDIDATES[2])
    h = CANDIDATES[1] - 1 - which // CANDIDATES[2] % CANDIDATES[1]
    w = CANDIDATES[2] - 1 - which % CANDIDATES[2]
    mask = mask & within(last_d - d, windows[2]) & within(last_h - h, windows[3])
    mask = mask & within(last_w - w, windows[4])
    return d, h, w, mask


@inline
def tap_over(reach, KERNEL: tl.constexpr, DILATION: tl.constexpr):
    """The tap of an axis that lies so far behind its window's first, and whether one does."""
    return reach // DILATION, (reach % DILATION == 0) & (reach // DILATION < KERNEL)


@inline
def given(totals, share, reach_d, reach_h, reach_w, CELL: tl.constexpr, KERNEL: tl.constexpr):
    """The totals of a cell's elements, each that the window covers with its share more: a window
    without gaps, whose first tap lies so far before the cell."""
    own = ()
    for i in tl.static_range(CELL[0] * CELL[1] * CELL[2]):
        d, h, w = i // (CELL[1] * CELL[2]), i // CELL[2] % CELL[1], i % CELL[2]
        covered = (reach_d + d < KERNEL[0]) & (reach_h + h < KERNEL[1]) & (reach_w + w < KERNEL[2])
        own = own + (totals[i] + tl.where(covered, share, 0.0),)
    return own


@inline
def averaged(
    position,
    size,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
):
    """How many taps of the window ``position`` of one axis count in its average."""
    start = position * STRIDE - PADDING
    if COUNT_INCLUDE_PAD:
        return tl.minimum(start + KERNEL, size + PADDING) - start
    else:
        return tl.minimum(start + KERNEL, size) - tl.maximum(start, 0)


@inline
def average(
    total,
    od,
    oh,
    ow,
    x_shape,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
    DIVISOR: tl.constexpr,
    INSIDE: tl.constexpr,
    pointer,
):
    """``total`` over the divisor of the window (od, oh, ow), for what ``pointer`` stores; the sum 0
    of a window with no tap that counts stays 0."""
    if DIVISOR != 0 or INSIDE:
        TAPS: tl.constexpr = DIVISOR if DIVISOR != 0 else KERNEL[0] * KERNEL[1] * KERNEL[2]
        if pointer.dtype.element_ty.primitive_bitwidth == 16:
            # Good to more digits than are kept; a division is eleven instructions.
            return total * (1.0 / TAPS)
        else:
            return divide(total, tl.full([1, 1], TAPS, tl.int32))
    else:
        taps = (
            averaged(od, x_shape[2], KERNEL[0], STRIDE[0], PADDING[0], COUNT_INCLUDE_PAD)
            * averaged(oh, x_shape[3], KERNEL[1], STRIDE[1], PADDING[1], COUNT_INCLUDE_PAD)
            * averaged(ow, x_shape[4], KERNEL[2], STRIDE[2], PADDING[2], COUNT_INCLUDE_PAD)
        )
        return divide(total, tl.maximum(taps, 1))


@inline
def sums_of(COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, pointer):
    """So many sums a lane, zeros."""
    out = ()
    for _ in tl.static_range(COUNT):
        out = out + (filled([ROWS, COLUMNS], 0.0, pointer),)
    return out


@inline
def element_at(i, d, h, w, mask, shape, stride, CELL: tl.constexpr):
    """Of the i-th element of cells that begin at (d, h, w): its distance from the first in a map of
    these strides, and whether it is in the map."""
    own_d, own_h, own_w = i // (CELL[1] * CELL[2]), i // CELL[2] % CELL[1], i % CELL[2]
    mask = mask & within(d + own_d, shape[2]) & within(h + own_h, shape[3])
    mask = mask & within(w + own_w, shape[4])
    return apart(own_d, own_h, own_w, stride), mask
