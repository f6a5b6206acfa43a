"""Adaptive and pyramid pooling of dense maps of one or two axes: the results of pool_adaptive.py
(definitions: csrc/pool_adaptive.h), whose kernels serve all other maps. The gradients are in
pool_adaptive_dense_backward.py.

    y[n, c, oh, ow] = average or maximum of x[n, c, h0 : h1, w0 : w1]

What belongs to a bin, where it begins and ends, is worked out once for all the planes of a program,
so an element costs its load and what it is added to or compared with. Contiguous: a row of a
program is the bins of ``together`` planes one after the other, as many as fill a power of two best,
and its columns have the arithmetic of bins. Channels last: a row is one bin, and the arithmetic is
a row's. The levels of a pyramid have programs of their own, which read the map from the L2 cache
after those of the first.

Why this form: the longest bin of an axis has one element more than the shortest, if any. So lanes
differ in the last line and the last turn only, and what is beyond a bin there is its last element
once more, which no maximum minds: no load has a mask. The lines of large bins are shared by SPLIT
lanes. A size is no constant; the turns in which a line is read are.
"""

import itertools
import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pydl.contract.pool_adaptive import longest as longest_bin
from pydl.contract.pool_adaptive import split

from . import runtime
from .bins import bounds, longest, portion
from .elements import as_offset, divided, filled, inline, narrow, widen

# Contiguous: the columns of a program, and the programs in all before one takes more than a row of
# planes. Channels last: the elements of a program.
MOST_COLUMNS = 256
LEAST_PROGRAMS = 192
PIXEL_ELEMENTS = 512
# How many lanes may share a bin, and the most turns in which they take a line of it.
LANES, MOST_TURNS = (1, 8, 32), 8
# Of a pyramid: what a thread keeps of each backward would not fit in its registers.
MOST_LEVELS = 4


@inline
def bins_at(
    program,
    channels,
    pixels,
    together,
    groups,
    column_blocks,
    BINS: tl.constexpr,
    SPLIT: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """Which of the BINS of each plane a program reduces, SPLIT lanes each: the image, the plane,
    the bin, the lane's number, and the mask, which is for channels last only: planes and bins
    behind the last are the last once more."""
    rest, block = divided(program, column_blocks)
    column = block * COLUMNS + tl.arange(0, COLUMNS)[:, None]
    row = tl.arange(0, ROWS)[None, :]
    if CHANNELS_LAST:
        number = rest * ROWS + row
        pixel = tl.minimum(number // SPLIT, pixels * BINS - 1)
        n, bin = divided(pixel, BINS)
        return n, column, bin, number % SPLIT, column < channels
    else:
        n, group = divided(rest, groups)
        first = tl.minimum(group * (STEPS * ROWS * together), channels - STEPS * ROWS * together)
        number = tl.minimum(column // SPLIT, together * BINS - 1)
        plane, bin = divided(number, BINS)
        return n, first + row * together + plane, bin, column % SPLIT, column < 0


@triton.jit  # what tl.reduce takes, interpreted as well
def later_maximum(value, place, other, its_place):
    """Of two maxima the one that a scan of both ends with: any NaN, the last; or the first of the
    greatest."""
    behind = its_place > place
    takes = (other > value) | ((other == value) & ~behind)
    takes = tl.where(other != other, behind | (value == value), takes & (value == value))
    return tl.where(takes, other, value), tl.where(takes, its_place, place)


@inline
def reduced(
    corner,  # pointers to the first elements of bins
    line,  # from a line of the map to the next
    step,  # and from an element
    tall,
    long,  # the elements of each bin along both axes
    lane,
    mask,
    total,
    pitch,  # what a line counts in an index
    longest_h,
    TURNS: tl.constexpr,
    SPLIT: tl.constexpr,
    MAXIMUM: tl.constexpr,
):
    """The sums or maxima of bins and the indices of these, counted from the bins' first elements. A
    lane takes each SPLIT-th element of a line."""
    index = (total != total).to(tl.int32) + tl.minimum(lane, long - 1)
    # A bin is at most one element shorter than the longest: only in the last turn and line are
    # there any without, who read the one before it again.
    left = (TURNS - 1) * SPLIT + lane
    last = tl.minimum(left, long - 1)
    for th in range(longest_h):
        h = tl.minimum(th, tall - 1)
        at = corner + h * line
        of_line = tl.zeros_like(total)
        for turn in tl.static_range(TURNS):
            if turn < TURNS - 1:
                value = widen(tl.load(at + as_offset(turn * SPLIT, True) * step, mask=mask))
            else:
                value = widen(tl.load(at + (last - lane) * step, mask=mask))
            if MAXIMUM:
                take = (value > total) | (value != value)
                total = tl.where(take, value, total)
                w = turn * SPLIT + lane if turn < TURNS - 1 else last
                index = tl.where(take, h * pitch + w, index)
            else:
                of_line += value if turn < TURNS - 1 else tl.where(left < long, value, 0.0)
        if not MAXIMUM:
            total += tl.where(th < tall, of_line, 0.0)
    return total, index


@inline
def pool_level(
    program,
    x_ptr,
    y_ptr,
    index_ptr,
    channels,
    height,
    width,
    pooled,
    begin,
    bin_step,
    step,  # from a place of the map to the next
    images,
    together,
    groups,
    column_blocks,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    TURNS: tl.constexpr,  # in which the lanes of a bin take its longest line
    SPLIT: tl.constexpr,
    MAXIMUM: tl.constexpr,
    INDEX: tl.constexpr,
    PYRAMID: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """Writes some of the results of a level."""
    BINS: tl.constexpr = BINS_H * BINS_W
    n, plane, bin, lane, mask = bins_at(
        program,
        channels,
        images,
        together,
        groups,
        column_blocks,
        BINS,
        SPLIT,
        STEPS,
        ROWS,
        COLUMNS,
        CHANNELS_LAST,
    )
    h0, h1 = bounds(bin // BINS_W, height, BINS_H)
    w0, w1 = bounds(bin % BINS_W, width, BINS_W)
    # Of the results, which are as many where no lanes share one.
    to_n, to_plane, to_bin, _, to_mask = bins_at(
        program,
        channels,
        images,
        together,
        groups,
        column_blocks,
        BINS,
        1,
        STEPS,
        ROWS // SPLIT if CHANNELS_LAST else ROWS,
        COLUMNS if CHANNELS_LAST else COLUMNS // SPLIT,
        CHANNELS_LAST,
    )
    mask = mask if CHANNELS_LAST else None
    to_mask = to_mask if CHANNELS_LAST else None
    pitch = width if INDEX == "flat" else longest(width, BINS_W)
    corner = (h0 * width + w0 + lane) * step + n * (channels * height * width)
    corner += plane if CHANNELS_LAST else plane * (height * width)
    to = to_bin * bin_step + (to_n * pooled + begin)
    to += to_plane * BINS if PYRAMID or not CHANNELS_LAST else to_plane
    for _ in range(STEPS):
        total = filled([COLUMNS, ROWS], float("-inf") if MAXIMUM else 0.0, x_ptr)
        total, chosen = reduced(
            x_ptr + corner,
            width * step,
            step,
            h1 - h0,
            w1 - w0,
            lane,
            mask,
            total,
            pitch,
            longest(height, BINS_H),
            TURNS,
            SPLIT,
            MAXIMUM,
        )
        if INDEX == "flat":
            chosen += h0 * width + w0
        if SPLIT > 1:
            AXIS: tl.constexpr = 2 if CHANNELS_LAST else 1
            total = lanes_apart(total, SPLIT, ROWS, COLUMNS, CHANNELS_LAST)
            if MAXIMUM:
                chosen = lanes_apart(chosen, SPLIT, ROWS, COLUMNS, CHANNELS_LAST)
                total, chosen = tl.reduce((total, chosen), AXIS, later_maximum)
            else:
                total = tl.sum(total, AXIS)
        if not MAXIMUM:
            to_h0, to_h1 = bounds(to_bin // BINS_W, height, BINS_H)
            to_w0, to_w1 = bounds(to_bin % BINS_W, width, BINS_W)
            taps = (to_h1 - to_h0) * (to_w1 - to_w0)
            total = portion(total, taps, 1.0 / taps.to(tl.float32), y_ptr)
        tl.store(y_ptr + to, narrow(total, y_ptr), mask=to_mask)
        if INDEX != "none":
            tl.store(index_ptr + to, chosen.to(index_ptr.dtype.element_ty), mask=to_mask)
        if not CHANNELS_LAST:
            corner += ROWS * together * (height * width)
            to += ROWS * together * BINS


@inline
def lanes_apart(
    value,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    """The lanes that share a bin along an axis of their own."""
    if CHANNELS_LAST:
        return tl.reshape(value, (COLUMNS, ROWS // SPLIT, SPLIT))
    else:
        return tl.reshape(value, (COLUMNS // SPLIT, SPLIT, ROWS))


@triton.jit
def adaptive_pool_forward_dense_kernel(
    x_ptr,  # (N, C, H, W), dense
    y_ptr,  # (N, C, OH, OW) in the layout of x, or of a pyramid (N, C * bins); dense, written
    index_ptr,  # like y: uint8 (INDEX "offset") or int64 ("flat"), written; not touched for "none"
    channels,
    height,
    width,
    pooled,  # results of an image
    begins,  # of each level: where it begins among them
    bin_step,  # from a bin to the next: 1, or the channels
    step,  # from a place of the map to the next
    images,
    starts,  # of each level: its first program; last, all programs
    together,  # of each level
    groups,
    column_blocks,
    LEVELS: tl.constexpr,  # two counts of bins a level
    TURNS: tl.constexpr,  # of each: in which SPLIT lanes take the longest line of a bin
    COUNT: tl.constexpr,
    SPLIT: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MAXIMUM: tl.constexpr,
    INDEX: tl.constexpr,
    PYRAMID: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):
    program = tl.program_id(0)
    for level in tl.static_range(COUNT):
        if (program >= starts[level]) & (program < starts[level + 1]):
            pool_level(
                program - starts[level],
                x_ptr,
                y_ptr,
                index_ptr,
                channels,
                height,
                width,
                pooled,
                begins[level],
                bin_step,
                step,
                images,
                together[level],
                groups[level],
                column_blocks[level],
                LEVELS[2 * level],
                LEVELS[2 * level + 1],
                TURNS[level],
                SPLIT[level],
                MAXIMUM,
                INDEX,
                PYRAMID,
                STEPS[level],
                ROWS[level],
                COLUMNS[level],
                CHANNELS_LAST,
            )


def together_of(plane: int, channels: int, most: int) -> tuple[int, int]:
    """How many planes make a row, and its columns: a power of two of which the most is used."""
    best = 1, min(runtime.power_of_two(plane), most)
    for count in range(2, channels + 1):
        columns = runtime.power_of_two(count * plane)
        if columns > most:
            break
        if count * best[1] >= best[0] * columns:
            best = count, columns
    return best


def serves(
    x: torch.Tensor, last: bool, levels: Sequence[int], pyramid: bool, *pooled: torch.Tensor
) -> bool:
    """Whether the kernels here serve a map like ``x`` and what it is pooled to: no more than two
    axes, few levels, no more bins than elements, all dense in one layout, and 32 bits for
    products."""
    if len(levels) > MOST_LEVELS * (x.ndim - 2):
        return False
    if x.ndim > 4 or runtime.wide(x, *pooled) or not runtime.dense(last, x):
        return False
    if not runtime.dense(last and not pyramid, *pooled):
        return False
    size, bins = runtime.spread(x.shape[2:], 1)[1:], flat_levels(levels, x.ndim - 2)
    longest_w = max(longest_bin(size[1], o) for o in bins[1::2])
    few = _lanes(longest_w) > 0 and all(
        o <= n for o, n in zip(bins, size * (len(bins) // 2), strict=True)
    )
    return few and math.prod(size) * max(size) < runtime.NARROW_LIMIT


def flat_levels(levels: Sequence[int], axes: int) -> list[int]:
    """Two counts of bins a level."""
    return [count for level in split(levels, axes) for count in runtime.spread(level, 1)[1:]]


def begins_of(channels: int, counts: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """How many results an image has, and where each level of so many bins begins among them."""
    *begins, pooled = itertools.accumulate((channels * count for count in counts), initial=0)
    return pooled, tuple(begins)


def most_over(bins: Sequence[int], height: int, width: int) -> tuple[int, ...]:
    """Of both axes of each level the most bins that hold an element, where there are no more bins
    than elements."""
    size = (height, width) * (len(bins) // 2)
    return tuple(1 if n % o == 0 else 2 for o, n in zip(bins, size, strict=True))


def forward(
    x: torch.Tensor,
    y: torch.Tensor,
    indices: torch.Tensor | None,
    levels: Sequence[int],
    index_form: str,
    last: bool,
    pyramid: bool,
) -> None:
    """Writes ``y`` and, of maxima, ``indices``."""
    images, channels = x.shape[:2]
    height, width = runtime.spread(x.shape[2:], 1)[1:]
    bins = split(flat_levels(levels, x.ndim - 2), 2)
    counts = [h * w for h, w in bins]
    tilings = [
        _bin_tiling(images, channels, tall * wide, longest_bin(width, wide), last, len(bins))
        for tall, wide in bins
    ]
    starts = tuple(itertools.accumulate((one["programs"] for one in tilings), initial=0))
    runtime.launch(
        adaptive_pool_forward_dense_kernel,
        starts[-1],
        x.device,
        x,
        y,
        indices,
        channels,
        height,
        width,
        *begins_of(channels, counts),
        channels if last and not pyramid else 1,
        channels if last else 1,
        images,
        starts,
        *(tuple(one[name] for one in tilings) for name in ("together", "groups", "column_blocks")),
        LEVELS=tuple(itertools.chain(*bins)),
        COUNT=len(counts),
        **{
            name: tuple(one[name] for one in tilings)
            for name in ("TURNS", "SPLIT", "STEPS", "ROWS", "COLUMNS")
        },
        MAXIMUM=indices is not None,
        INDEX=index_form,
        PYRAMID=pyramid,
        CHANNELS_LAST=last,
        num_warps=1 if last else 4,
        maxnreg=runtime.ALL_REGISTERS,
    )


def _lanes(most: int) -> int:
    """How many lanes share a bin whose lines have at most so many elements."""
    return next((lanes for lanes in LANES if most <= lanes * MOST_TURNS), 0)


def _bin_tiling(
    images: int, channels: int, bins: int, most: int, last: bool, levels: int
) -> dict[str, int]:
    """How the programs of a level cover its results, from lines of at most so many elements."""
    lanes = _lanes(most)
    if last:
        columns = runtime.block_of(channels, PIXEL_ELEMENTS // lanes)
        rows, steps, together, groups = max(PIXEL_ELEMENTS // columns, lanes), 1, 1, 1
        blocks = -(-channels // columns)
        programs = -(-images * bins * lanes // rows) * blocks
    else:
        together, columns = together_of(bins * lanes, channels, MOST_COLUMNS)
        enough = max(images * channels // (together * (LEAST_PROGRAMS // levels)), 1)
        deep = runtime.power_of_two(min(channels // together, enough) + 1) // 2
        rows = min(deep, 4)
        steps = min(deep // rows, 4)
        groups = -(-channels // (steps * rows * together))
        blocks = -(-together * bins * lanes // columns)
        programs = images * groups * blocks
    return {
        "programs": programs,
        "together": together,
        "groups": groups,
        "column_blocks": blocks,
        "TURNS": -(-most // lanes),
        "SPLIT": lanes,
        "STEPS": steps,
        "ROWS": rows,
        "COLUMNS": columns,
    }
