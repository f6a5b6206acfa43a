"""What adaptive and pyramid pooling share: where bins lie, and what one of them is reduced to."""

import math
from collections.abc import Sequence

import triton.language as tl

from pydl.contract.pool_adaptive import longest, split

from . import runtime
from .elements import divide, inline, widen


@inline
def bin_start(o, size, BINS: tl.constexpr):
    """Where bin ``o`` of an axis begins."""
    return o * size // BINS


@inline
def bin_end(o, size, BINS: tl.constexpr):
    """Where bin ``o`` of an axis ends."""
    return ((o + 1) * size + (BINS - 1)) // BINS


@inline
def reduce_bin(
    plane,  # pointers to the planes, broadcast against the bins
    od,
    oh,
    ow,
    mask,
    x_shape,
    x_stride,
    start,  # a tensor of the result's dtype and shape: zeros, or -inf
    BINS_D: tl.constexpr,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    LONGEST_D: tl.constexpr,
    LONGEST_H: tl.constexpr,
    LONGEST_W: tl.constexpr,
    UNROLL: tl.constexpr,
    MAXIMUM: tl.constexpr,
):
    """The average or maximum of the bins (od, oh, ow), and the tap of each maximum."""
    d0, d1 = bin_start(od, x_shape[2], BINS_D), bin_end(od, x_shape[2], BINS_D)
    h0, h1 = bin_start(oh, x_shape[3], BINS_H), bin_end(oh, x_shape[3], BINS_H)
    w0, w1 = bin_start(ow, x_shape[4], BINS_W), bin_end(ow, x_shape[4], BINS_W)
    result = start
    best_tap = (start * 0 == 1).to(tl.int32) - 1
    for tap in tl.range(0, LONGEST_D * LONGEST_H * LONGEST_W, loop_unroll_factor=UNROLL):
        d = d0 + tap // (LONGEST_H * LONGEST_W)
        h = h0 + tap // LONGEST_W % LONGEST_H
        w = w0 + tap % LONGEST_W
        inside = mask & (d < d1) & (h < h1) & (w < w1)
        value = tl.load(
            plane + d * x_stride[2] + h * x_stride[3] + w * x_stride[4], mask=inside, other=0.0
        )
        value = widen(value)
        if MAXIMUM:
            take = inside & ((best_tap < 0) | (value > result) | (value != value))
            result = tl.where(take, value, result)
            best_tap = tl.where(take, tap, best_tap)
        else:
            result += value
    if not MAXIMUM:
        taps = (d1 - d0) * (h1 - h0) * (w1 - w0)
        result = divide(result, tl.maximum(taps, 1))
    return result, best_tap


@inline
def flat_position(
    tap,
    od,
    oh,
    ow,
    x_shape,
    BINS_D: tl.constexpr,
    BINS_H: tl.constexpr,
    BINS_W: tl.constexpr,
    LONGEST_H: tl.constexpr,
    LONGEST_W: tl.constexpr,
):
    """The position in its plane of the element ``tap`` of the bins (od, oh, ow), in 64 bits."""
    d = bin_start(od, x_shape[2], BINS_D) + tap // (LONGEST_H * LONGEST_W)
    h = bin_start(oh, x_shape[3], BINS_H) + tap // LONGEST_W % LONGEST_H
    w = bin_start(ow, x_shape[4], BINS_W) + tap % LONGEST_W
    return (d.to(tl.int64) * x_shape[3] + h) * x_shape[4] + w


def lengths(size: Sequence[int], bins: Sequence[int]) -> tuple[int, int, int]:
    """The longest bins of D, H, W; of an input's side, the most bins that hold an element."""
    return runtime.spread([longest(n, out) for n, out in zip(size, bins, strict=True)], 1)


def levels_of(size: Sequence[int], levels: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Of a pyramid's levels: D, H, W bins each, the longest bins, and the bins before (and in
    all)."""
    each = split(levels, len(size))
    bins = [count for level in each for count in runtime.spread(level, 1)]
    longest_bins = [length for level in each for length in lengths(size, level)]
    first = [0]
    for level in each:
        first.append(first[-1] + math.prod(level))
    return bins, longest_bins, first
