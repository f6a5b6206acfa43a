"""Sums over a channel's pixels, in runs that split.py or a kernel of its own joins: which elements
a program adds up, tile by tile, and how a map is parted into runs.

Where channels are neighbours in memory a tile is of up to 32 channels of some pixels, else of one
channel in some images. A lane adds up what comes to it, and the lanes are added once, at the end.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from . import runtime
from .elements import as_offset, inline, pixel, pixel_of_plane
from .split import SPLIT_PIXELS, SPLIT_PROGRAMS, split_of


@inline
def share_of(
    program,
    channels,
    pixels,
    columns,
    run_pixels,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The channels of a program that adds up, [1, COLUMNS] where rows are pixels, else [1, 1], the
    first before them all; its run of pixels and its first pixel; and the tiles that hold them."""
    CHANNELS: tl.constexpr = COLUMNS if ROWS_ARE_PIXELS else 1
    program = as_offset(program, WIDE)
    blocks = (channels + CHANNELS - 1) // CHANNELS
    c0 = (program % blocks) * CHANNELS
    c = c0 + tl.arange(0, CHANNELS)[None, :]
    run = program // blocks
    first = run * run_pixels
    last = tl.minimum(first + run_pixels, pixels)
    if ROWS_ARE_PIXELS:
        return c0, c, run, first, first // ROWS, (last + ROWS - 1) // ROWS
    else:
        across = (columns + COLUMNS - 1) // COLUMNS
        begin = first // columns // ROWS * across + first % columns // COLUMNS
        end = (last - 1) // columns // ROWS * across + (last - 1) % columns // COLUMNS + 1
        return c0, c, run, first, begin, end


@inline
def tile_at(
    tile,
    c0,
    c,
    first,
    shape,
    pixels,
    columns,
    run_pixels,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    WIDE: tl.constexpr,
    ONE_TILE: tl.constexpr = False,
):
    """The elements [ROWS, COLUMNS] of a tile: (n, d, h, w), their offsets in a dense map, which
    belong to the program, and their rows in the mask, first byte, and which rows there are. A row
    is a pixel's channels, or a plane of one channel, each of another image. ONE_TILE: these are all
    there are."""
    row = as_offset(tl.arange(0, ROWS)[:, None], WIDE)
    if ROWS_ARE_PIXELS:
        p = tile * ROWS + row
        n, d, h, w = pixel(p, shape[2], shape[3], shape[4])
        there = (p < first + run_pixels) & (p < pixels)
        byte = c0 // 8
        return n, d, h, w, p * shape[1] + c, there & (c < shape[1]), p, byte, there
    elif ONE_TILE:
        column = as_offset(tl.arange(0, COLUMNS)[None, :], WIDE)
        d, h, w = pixel_of_plane(column, shape)
        there = row < shape[0]
        offset = row * (shape[1] * columns) + (c * columns + column)
        return row, d, h, w, offset, there & (column < columns), row * shape[1] + c, 0, there
    else:
        across = (columns + COLUMNS - 1) // COLUMNS
        n = tile // across * ROWS + row
        first_column = tile % across * COLUMNS
        column = first_column + as_offset(tl.arange(0, COLUMNS)[None, :], WIDE)
        d, h, w = pixel_of_plane(column, shape)
        p = n * columns + column
        mask = (p >= first) & (p < first + run_pixels) & (p < pixels) & (column < columns)
        row = n * shape[1] + c
        there = n * columns < pixels
        return n, d, h, w, row * columns + column, mask, row, first_column // 8, there


@inline
def added(lanes, ROWS_ARE_PIXELS: tl.constexpr):
    """The sums of a program's channels, [1, COLUMNS] or [1, 1]."""
    if ROWS_ARE_PIXELS:
        return tl.sum(lanes, 0)[None, :]
    else:
        return tl.zeros([1, 1], lanes.dtype) + tl.sum(lanes)


def runs_of(
    x: torch.Tensor,
    last: bool,
    elements: int,
    programs_each: int = 1,
    size: Sequence[int] | None = None,
) -> dict[str, int | bool]:
    """How the programs of a sum part the map ``x``, or one of another ``size``, so many elements at
    a time: the arguments of :func:`share_of`, and besides how many ``runs`` there are and how many
    ``programs`` in all, of which a run of some channels has ``programs_each``."""
    (images, channels), columns = x.shape[:2], math.prod(x.shape[2:] if size is None else size)
    pixels = images * columns
    if last:
        wide = min(32, max(8, runtime.power_of_two(channels)))
        high = min(elements // wide, max(16, runtime.power_of_two(pixels)))
        programs, unit = triton.cdiv(channels, wide), high
    else:
        wide = max(8, runtime.block_of(columns, elements))
        # As many images as leave enough programs, each of whole images if of more than one.
        rows = max(1, images * channels // SPLIT_PROGRAMS)
        high = min(elements // wide, runtime.power_of_two(images), 1 << rows.bit_length() - 1)
        programs, unit = channels, high * columns if high > 1 else wide
    # At least a few blocks a run, as a sum over pixels has elsewhere.
    unit *= max(1, SPLIT_PIXELS // unit)
    runs, run_blocks = split_of(pixels, programs * programs_each, unit)
    return {
        "runs": runs,
        "programs": programs * programs_each * runs,
        "pixels": pixels,
        "columns": columns,
        "run_pixels": run_blocks * unit,
        "ROWS": high,
        "COLUMNS": wide,
        "ROWS_ARE_PIXELS": last,
    }
