"""What adaptive and pyramid pooling share: where bins lie, and what one of them is reduced to."""

import math
from collections.abc import Sequence

import torch
import triton.language as tl

from pydl.contract.pool_adaptive import split

from . import runtime
from .elements import INTERPRETING, divide, divided, inline, widen


@inline
def bin_start(o, size, BINS: tl.constexpr):
    """Where bin ``o`` of an axis begins."""
    return divided(o * size, BINS)[0]


@inline
def bin_end(o, size, BINS: tl.constexpr):
    """Where bin ``o`` of an axis ends."""
    return divided((o + 1) * size + (BINS - 1), BINS)[0]


@inline
def bounds(o, size, BINS: tl.constexpr):
    """Where bin ``o`` of an axis begins and ends."""
    return bin_start(o, size, BINS), bin_end(o, size, BINS)


@inline
def longest(size, bins):
    """The elements of the longest bin of an axis; of bins and an input's size, the most bins that
    hold an element. Not the host's, as a constant would make a kernel of its own for each size."""
    rest = size % bins
    uneven = tl.where(bins % tl.maximum(rest, 1) == 0, 1, 2)
    return size // bins + tl.where(rest == 0, 0, uneven)


@inline
def quotient(index, size):
    """``index // size`` by a multiplication, for a size that all elements of a program share: exact
    where index * size < 2**31 (Granlund, Montgomery 1994: the factor is 2**31 / size, rounded
    up)."""
    size = tl.cast(size, tl.uint32)
    return tl.umulhi(index.to(tl.uint32) * 2, (size + 0x7FFFFFFF) // size).to(tl.int32)


@inline
def which_bin(i, size, which, BINS: tl.constexpr, OVER: tl.constexpr):
    """Of the OVER bins of an axis, one or two, that may hold the element ``i`` the which-th, and
    whether it does. Both are bins, so that they can be loaded before that is asked."""
    o = tl.minimum(quotient(i * BINS, size), BINS - OVER) + which
    if OVER == 1:
        return o, i >= 0
    else:
        # The first begins before the element, and the second ends behind it.
        return o, tl.where(which == 0, i < bin_end(o, size, BINS), i >= bin_start(o, size, BINS))


@inline
def portion(value, taps, inverse, pointer):
    """``value / taps``, for what ``pointer`` stores, by the inverse of ``taps``, which all planes
    share."""
    if INTERPRETING or value.dtype == tl.float64:
        return divide(value, taps)
    else:
        divisor = taps.to(tl.float32)
        about = value * inverse
        if pointer.dtype.element_ty.primitive_bitwidth == 16:
            # Good to more digits than are kept.
            return about
        else:
            # Rounded correctly up to 2**18 taps: no quotient by so few is as near to the middle
            # between two numbers as this is to the quotient. The rest is NaN for an infinity.
            rest = tl.fma(-about, divisor, value)
            return tl.where(rest == rest, tl.fma(rest, inverse, about), about)


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
    MAXIMUM: tl.constexpr,
):
    """The average or maximum of the bins (od, oh, ow), and the tap of each maximum."""
    d0, d1 = bin_start(od, x_shape[2], BINS_D), bin_end(od, x_shape[2], BINS_D)
    h0, h1 = bin_start(oh, x_shape[3], BINS_H), bin_end(oh, x_shape[3], BINS_H)
    w0, w1 = bin_start(ow, x_shape[4], BINS_W), bin_end(ow, x_shape[4], BINS_W)
    result = start
    best_tap = (start * 0 == 1).to(tl.int32) - 1
    longest_h, longest_w = longest(x_shape[3], BINS_H), longest(x_shape[4], BINS_W)
    for td in range(longest(x_shape[2], BINS_D)):
        for th in range(longest_h):
            d, h = d0 + td, h0 + th
            line = plane + d * x_stride[2] + h * x_stride[3]
            in_line = mask & (d < d1) & (h < h1)
            # Not unrolled, which spills: the elements of a thread are loads in flight enough.
            for tw in range(longest_w):
                w = w0 + tw
                inside = in_line & (w < w1)
                value = widen(tl.load(line + w * x_stride[4], mask=inside, other=0.0))
                if MAXIMUM:
                    take = inside & ((best_tap < 0) | (value > result) | (value != value))
                    result = tl.where(take, value, result)
                    best_tap = tl.where(take, (td * longest_h + th) * longest_w + tw, best_tap)
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
):
    """The position in its plane of the element ``tap`` of the bins (od, oh, ow), in 64 bits."""
    longest_h, longest_w = longest(x_shape[3], BINS_H), longest(x_shape[4], BINS_W)
    d = bin_start(od, x_shape[2], BINS_D) + tap // (longest_h * longest_w)
    h = bin_start(oh, x_shape[3], BINS_H) + tap // longest_w % longest_h
    w = bin_start(ow, x_shape[4], BINS_W) + tap % longest_w
    return (d.to(tl.int64) * x_shape[3] + h) * x_shape[4] + w


def wide(size: Sequence[int], levels: Sequence[int], *tensors: torch.Tensor) -> bool:
    """runtime.wide of the tensors, or whether the product of a bin and a size needs 64 bits."""
    bins = split(levels, len(size))
    products = [n * out for level in bins for n, out in zip(size, level, strict=True)]
    return max(products) >= runtime.NARROW_LIMIT or runtime.wide(*tensors)


def levels_of(size: Sequence[int], levels: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of a pyramid's levels: D, H, W bins each, and the bins before (and in all)."""
    each = split(levels, len(size))
    bins = [count for level in each for count in runtime.spread(level, 1)]
    first = [0]
    for level in each:
        first.append(first[-1] + math.prod(level))
    return bins, first
