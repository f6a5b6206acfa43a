"""The gradients of adaptive and pyramid averages of dense contiguous maps whose planes have few
bins: the results of pool_adaptive_dense_backward.py, whose kernel serves all other dense maps.

    grad_x[n, c, h, w] = sum over the bins that hold (h, w): of grad_y over the bin's elements

The bins of a program's planes lie in shared memory, divided by their elements. So this is done once
a bin, and an element costs a load and an addition for each bin that may hold it: one that does not
is a zero behind the row's bins. Maxima, which would need the place of each beside it, are no faster
this way.

Why this form: a gather of one axis is what Triton makes loads from shared memory of, where one of
two axes becomes shuffles; and each gather copies its source there. So the bins of all rows are one
axis, and all the bins that hold elements are gathered at once: [OVER * ROWS * COLUMNS].
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pydl.contract.pool_adaptive import split

from . import runtime
from .bins import bounds, portion, quotient, which_bin
from .elements import divided, filled, inline, narrow, widen
from .pool_adaptive_dense import begins_of, flat_levels, most_over, together_of

# Of a program: the columns, its rows at a time, and how often.
MOST_COLUMNS = 512
ROWS = 4
STEPS = 4
# Of a level: what is in shared memory, at most.
MOST_BINS = 4096


@inline
def bins_of(
    places,  # through a level's bins, SPAN a row
    together,
    height,
    width,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Where bins of the planes of a row are read, if they are; and of each: the elements and
    their inverse."""
    BINS: tl.constexpr = BINS_H * BINS_W
    number = places % SPAN
    h0, h1 = bounds(number % BINS // BINS_W, height, BINS_H)
    w0, w1 = bounds(number % BINS_W, width, BINS_W)
    taps = (h1 - h0) * (w1 - w0)
    return number, number < together * BINS, taps, 1.0 / taps.to(tl.float32)


@inline
def bins_over(
    which,  # of the bins that may hold it
    plane,
    h,
    w,
    height,
    width,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    OVER_H: tl.constexpr,
    OVER_W: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Which bin of its row that is; the row's last, a zero, if it does not hold the element."""
    oh, over_h = which_bin(h, height, which // OVER_W, BINS_H, OVER_H)
    ow, over_w = which_bin(w, width, which % OVER_W, BINS_W, OVER_W)
    held = over_h & over_w
    return tl.where(held, (plane * BINS_H + oh) * BINS_W + ow, SPAN - 1)


@inline
def elements_at(numbers, block, height, width, together, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Of elements of a program, [..., ROWS, COLUMNS]: the row, the column, the plane in its row,
    and the place. Those behind the last are the last once more."""
    column = tl.minimum(block * COLUMNS + numbers % COLUMNS, together * height * width - 1)
    plane = quotient(column, height * width)
    place = column - plane * (height * width)
    h = quotient(place, width)
    return numbers // COLUMNS % ROWS, column, plane, h, place - h * width


@triton.jit
def adaptive_pool_backward_planes_kernel(
    grad_y_ptr,  # (N, C, OH, OW), or of a pyramid (N, C * bins); dense
    grad_x_ptr,  # (N, C, H, W), dense, written
    channels,
    height,
    width,
    pooled,  # results of an image
    begins,  # of each level: where it begins among them
    together,
    groups,
    column_blocks,
    LEVELS: tl.constexpr,  # two counts of bins a level
    OVER: tl.constexpr,  # of each: the most that hold an element, 1 or 2
    SPAN: tl.constexpr,  # of each level: the bins of a row and at least one more, a power of two
    COUNT: tl.constexpr,
    STEPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    rest, block = divided(tl.program_id(0), column_blocks)
    n, group = divided(rest, groups)
    first = tl.minimum(group * (STEPS * ROWS * together), channels - STEPS * ROWS * together)
    row, column, _, _, _ = elements_at(
        tl.arange(0, ROWS * COLUMNS), block, height, width, together, ROWS, COLUMNS
    )
    grad_x_ptr += (n * channels + first) * (height * width)
    offset = row * (together * height * width) + column
    sources, targets = (), ()
    for level in tl.static_range(COUNT):
        sources = sources + (
            bins_of(
                tl.arange(0, ROWS * SPAN[level]),
                together,
                height,
                width,
                LEVELS[2 * level],
                LEVELS[2 * level + 1],
                SPAN[level],
            ),
        )
        numbers = tl.arange(0, OVER[2 * level] * OVER[2 * level + 1] * ROWS * COLUMNS)
        its_row, _, plane, h, w = elements_at(
            numbers, block, height, width, together, ROWS, COLUMNS
        )
        bin = bins_over(
            numbers // (ROWS * COLUMNS),
            plane,
            h,
            w,
            height,
            width,
            LEVELS[2 * level],
            LEVELS[2 * level + 1],
            OVER[2 * level],
            OVER[2 * level + 1],
            SPAN[level],
        )
        targets = targets + ((bin, its_row),)
    for _ in range(STEPS):
        total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
        for level in tl.static_range(COUNT):
            number, there, taps, inverse = sources[level]
            bin, its_row = targets[level]
            its_first = first * (LEVELS[2 * level] * LEVELS[2 * level + 1])
            line = together * (LEVELS[2 * level] * LEVELS[2 * level + 1])
            at = n * pooled + begins[level] + its_first
            at += tl.arange(0, ROWS * SPAN[level]) // SPAN[level] * line + number
            share = widen(tl.load(grad_y_ptr + at, mask=there, other=0.0))
            share = portion(share, taps, inverse, grad_x_ptr)
            # Here and not before, where it would be a value of each row, not a constant offset.
            bin = bin + its_row * SPAN[level]
            given = tl.gather(share, bin, 0)
            apart = tl.reshape(given, (OVER[2 * level] * OVER[2 * level + 1], ROWS, COLUMNS))
            total += tl.sum(apart, 0)
        out = narrow(tl.reshape(total, (ROWS * COLUMNS,)), grad_x_ptr)
        tl.store(grad_x_ptr + offset, out)
        grad_x_ptr += ROWS * together * (height * width)
        first += ROWS * together


def _spans(plane: int, channels: int, counts: Sequence[int]) -> tuple[int, int, list[int]]:
    """The planes of a row, its columns, and of each level SPAN."""
    together, columns = together_of(plane, channels, MOST_COLUMNS)
    return together, columns, [runtime.power_of_two(together * count + 1) for count in counts]


def serves(grad_x: torch.Tensor, last: bool, levels: Sequence[int]) -> bool:
    """Whether the kernel here serves what pool_adaptive_dense does."""
    counts = [h * w for h, w in split(flat_levels(levels, grad_x.ndim - 2), 2)]
    spans = _spans(math.prod(grad_x.shape[2:]), grad_x.shape[1], counts)[2]
    return not last and max(counts) > 1 and ROWS * max(spans) <= MOST_BINS


def backward(
    grad_y: torch.Tensor,
    grad_x: torch.Tensor,
    levels: Sequence[int],
) -> None:
    """Writes ``grad_x``."""
    images, channels = grad_x.shape[:2]
    height, width = runtime.spread(grad_x.shape[2:], 1)[1:]
    bins = flat_levels(levels, grad_x.ndim - 2)
    counts = [h * w for h, w in split(bins, 2)]
    together, columns, spans = _spans(height * width, channels, counts)
    # Never more planes than there are.
    deep = runtime.power_of_two(channels // together + 1) // 2
    rows = min(deep, ROWS)
    steps = min(deep // rows, STEPS)
    groups = -(-channels // (steps * rows * together))
    blocks = -(-together * height * width // columns)
    runtime.launch(
        adaptive_pool_backward_planes_kernel,
        images * groups * blocks,
        grad_y.device,
        grad_y,
        grad_x,
        channels,
        height,
        width,
        *begins_of(channels, counts),
        together,
        groups,
        blocks,
        LEVELS=tuple(bins),
        OVER=most_over(bins, height, width),
        SPAN=tuple(spans),
        COUNT=len(counts),
        STEPS=steps,
        ROWS=rows,
        COLUMNS=columns,
        # A thread keeps the bins of its columns for each level.
        num_warps=4 if len(counts) == 1 else 8,
        maxnreg=runtime.ALL_REGISTERS,
    )
