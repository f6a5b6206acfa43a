"""The gradients of adaptive and pyramid pooling of dense maps of one or two axes: the results of
pool_adaptive.py (definitions: csrc/pool_adaptive.h), whose kernel serves all other maps.

    grad_x[n, c, h, w] = sum over the bins that hold (h, w): of grad_y over the bin's elements, or
                         of the grad_y whose index is this element

What belongs to a place, which bins hold it and how large they are, is worked out once for all the
planes of a program, so an element costs the loads of its bins and what they are compared or
multiplied with. Contiguous: a row of a program is ``together`` planes one after the other, as many
as fill a power of two best, and its columns have the arithmetic of places. Channels last: a row is
one pixel, and the arithmetic is a row's.

Why this form: while there are no more bins than elements, at most two of an axis hold an element,
and one where all are equally long: OVER, at most four variants a level. As many bins are looked at
as can hold an element, all of which exist, so no load has a mask. A size is no constant.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from pydl.contract.pool_adaptive import split

from . import runtime
from .bins import bounds, longest, portion, quotient, which_bin
from .elements import as_offset, divided, filled, inline, narrow, widen
from .pool_adaptive_dense import PIXEL_ELEMENTS, begins_of, flat_levels, most_over, together_of

# Of a program over planes: the columns, the elements of a step, and its steps.
MOST_COLUMNS = 512
STEP_ELEMENTS = 2048
STEPS = 4


@inline
def bins_over(
    h,
    w,
    height,
    width,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    OVER_H: tl.constexpr,
    OVER_W: tl.constexpr,
    MAXIMUM: tl.constexpr,
    OFFSET: tl.constexpr,
):
    """The number of the first of the OVER_H x OVER_W bins that may hold the elements (h, w), all of
    which are bins; and of each of them: the elements, their inverse and whether it does; of maxima
    the index that chooses the element, -1 where it does not."""
    marks, inverses, helds = (), (), ()
    for over in tl.static_range(OVER_H * OVER_W):
        oh, over_h = which_bin(h, height, over // OVER_W, BINS_H, OVER_H)
        ow, over_w = which_bin(w, width, over % OVER_W, BINS_W, OVER_W)
        h0, h1 = bounds(oh, height, BINS_H)
        w0, w1 = bounds(ow, width, BINS_W)
        held = over_h & over_w
        helds = helds + (held,)
        if MAXIMUM:
            in_bin = (h - h0) * longest(width, BINS_W) + (w - w0)
            own = in_bin if OFFSET else h * width + w
            marks = marks + (tl.where(held, own, -1),)
        else:
            taps = (h1 - h0) * (w1 - w0)
            marks, inverses = marks + (taps,), inverses + (1.0 / taps.to(tl.float32),)
    oh, _ = which_bin(h, height, 0, BINS_H, OVER_H)
    ow, _ = which_bin(w, width, 0, BINS_W, OVER_W)
    return oh * BINS_W + ow, marks, inverses, helds


@inline
def given(
    total,
    grad_y_ptr,
    index_ptr,
    at,
    mask,
    mark,
    inverse,
    held,
    MAXIMUM: tl.constexpr,
):
    """``total`` and what one bin gives."""
    grad_y = widen(tl.load(grad_y_ptr + at, mask=mask))
    if MAXIMUM:
        chosen = tl.load(index_ptr + at, mask=mask).to(tl.int32)
        return tl.where(chosen == mark, total + grad_y, total)
    else:
        return total + tl.where(held, portion(grad_y, mark, inverse, grad_y_ptr), 0.0)


@inline
def gathered(
    total,
    grad_y_ptr,
    index_ptr,
    at,  # where the first bin is
    bin_step,
    mask,
    marks,
    inverses,
    helds,
    BINS_W: tl.constexpr,
    OVER_H: tl.constexpr,
    OVER_W: tl.constexpr,
    MAXIMUM: tl.constexpr,
    ONE_PIXEL: tl.constexpr,
):
    """``total`` and what the bins of a level give."""
    for over in tl.static_range(OVER_H * OVER_W):
        further = as_offset(over // OVER_W * BINS_W + over % OVER_W, True) * bin_step
        held = helds[over]
        if ONE_PIXEL:
            if held:
                total = given(
                    total,
                    grad_y_ptr,
                    index_ptr,
                    at + further,
                    mask,
                    marks[over],
                    inverses[over] if not MAXIMUM else 0,
                    held,
                    MAXIMUM,
                )
        else:
            total = given(
                total,
                grad_y_ptr,
                index_ptr,
                at + further,
                mask,
                marks[over],
                inverses[over] if not MAXIMUM else 0,
                held,
                MAXIMUM,
            )
    return total


@triton.jit
def adaptive_pool_backward_dense_kernel(
    grad_y_ptr,  # (N, C, OH, OW) in the layout of grad_x, or of a pyramid (N, C * bins); dense
    index_ptr,  # like grad_y, uint8 or int64; None for averages
    grad_x_ptr,  # (N, C, H, W), dense, written
    channels,
    height,
    width,
    pooled,  # results of an image
    begins,  # of each level: where it begins among them
    bin_step,  # from a bin to the next: 1, or the channels
    pixels,  # of all images
    together,
    groups,
    column_blocks,
    LEVELS: tl.constexpr,  # two counts of bins a level
    OVER: tl.constexpr,  # of each: the most that hold an element, 1 or 2
    COUNT: tl.constexpr,
    MAXIMUM: tl.constexpr,
    OFFSET: tl.constexpr,  # how an index counts: in its bin, or in the plane
    PYRAMID: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    # Planes and pixels behind the last are the last once more, so they need no mask.
    rest, block = divided(tl.program_id(0), column_blocks)
    column = block * COLUMNS + tl.arange(0, COLUMNS)[:, None]
    row = tl.arange(0, ROWS)[None, :]
    if CHANNELS_LAST:
        # Of one pixel everything is a number, not a tensor, and bins that do not hold it are left
        # out.
        pixel = rest if ROWS == 1 else tl.minimum(rest * ROWS + row, pixels - 1)
        n, place = divided(pixel, height * width)
        offset = pixel * channels + column
        first, step, plane, row = 0, 0, column, 0
        mask = column < channels
    else:
        n, group = divided(rest, groups)
        first = tl.minimum(group * (STEPS * ROWS * together), channels - STEPS * ROWS * together)
        column = tl.minimum(column, together * height * width - 1)
        mask = None
        plane = quotient(column, height * width)
        place = column - plane * (height * width)
        grad_x_ptr += (n * channels + first) * (height * width)
        offset = row * (together * height * width) + column
        row *= together
        step = ROWS * together
    h = quotient(place, width)
    w = place - h * width
    places, marks, inverses, helds = (), (), (), ()
    for level in tl.static_range(COUNT):
        place, own, inverse, held = bins_over(
            h,
            w,
            height,
            width,
            LEVELS[2 * level],
            LEVELS[2 * level + 1],
            OVER[2 * level],
            OVER[2 * level + 1],
            MAXIMUM,
            OFFSET,
        )
        places = places + (place * bin_step + (n * pooled + begins[level]),)
        marks, inverses, helds = marks + (own,), inverses + (inverse,), helds + (held,)
    for _ in range(STEPS):
        total = filled([COLUMNS, ROWS], 0.0, grad_y_ptr)
        for level in tl.static_range(COUNT):
            at = first + plane + row
            if PYRAMID or not CHANNELS_LAST:
                at *= LEVELS[2 * level] * LEVELS[2 * level + 1]
            total = gathered(
                total,
                grad_y_ptr,
                index_ptr,
                at + places[level],
                bin_step,
                mask,
                marks[level],
                inverses[level],
                helds[level],
                LEVELS[2 * level + 1],
                OVER[2 * level],
                OVER[2 * level + 1],
                MAXIMUM,
                CHANNELS_LAST and ROWS == 1,
            )
        tl.store(grad_x_ptr + offset, narrow(total, grad_x_ptr), mask=mask)
        grad_x_ptr += step * (height * width)
        first += step


def _tiling(x: torch.Tensor, last: bool, levels: int) -> tuple[int, dict[str, Any]]:
    """The programs for a map like ``x``, and their arguments."""
    # What a thread keeps of a column, it keeps for each level: so it has fewer columns, and fewer
    # elements at a time.
    more = 1 if levels == 1 else 2
    images, channels = x.shape[:2]
    plane = math.prod(x.shape[2:])
    if last:
        columns = runtime.block_of(channels, PIXEL_ELEMENTS)
        rows = 1 if columns >= PIXEL_ELEMENTS // 2 else PIXEL_ELEMENTS // columns
        steps, together, groups = 1, 1, 1
        blocks = -(-channels // columns)
        count = -(-images * plane // rows) * blocks
    else:
        together, columns = together_of(plane, channels, MOST_COLUMNS)
        # Never more planes than there are.
        most = runtime.power_of_two(channels // together + 1) // 2
        rows = min(most, max(STEP_ELEMENTS // more // columns, 1))
        steps = min(most // rows, STEPS * more)
        groups = -(-channels // (steps * rows * together))
        blocks = -(-together * plane // columns)
        count = images * groups * blocks
    return count, {
        "pixels": images * plane,
        "together": together,
        "groups": groups,
        "column_blocks": blocks,
        "STEPS": steps,
        "ROWS": rows,
        "COLUMNS": columns,
        "CHANNELS_LAST": last,
        "num_warps": 1 if last else 4 * more,
    }


def backward(
    grad_y: torch.Tensor,
    index: torch.Tensor | None,
    grad_x: torch.Tensor,
    levels: Sequence[int],
    last: bool,
    pyramid: bool,
) -> None:
    """Writes ``grad_x``, of maxima where there is an ``index``."""
    channels, height, width = grad_x.shape[1], *runtime.spread(grad_x.shape[2:], 1)[1:]
    bins = flat_levels(levels, grad_x.ndim - 2)
    counts = [h * w for h, w in split(bins, 2)]
    count, tiling = _tiling(grad_x, last, len(counts))
    runtime.launch(
        adaptive_pool_backward_dense_kernel,
        count,
        grad_y.device,
        grad_y,
        index,
        grad_x,
        channels,
        height,
        width,
        *begins_of(channels, counts),
        channels if last and not pyramid else 1,
        **tiling,
        LEVELS=tuple(bins),
        OVER=most_over(bins, height, width),
        COUNT=len(counts),
        MAXIMUM=index is not None,
        OFFSET=index is not None and index.dtype == torch.uint8,
        PYRAMID=pyramid,
        maxnreg=runtime.ALL_REGISTERS,
    )
