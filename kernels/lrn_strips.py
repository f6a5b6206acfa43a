"""Local response normalisation of strips of channels (definition: csrc/lrn.h; lrn.py has the
equations and the general kernels).

A lane has STRIP channels of a pixel. What their windows share it loads and squares once, and in
backward raises to a power once; each window is added up by itself, so that a NaN or an infinity
spoils no other.

Layouts: contiguous, neighbouring lanes have neighbouring pixels, and a program covers ROWS x
COLUMNS of those in the order of memory (elements.walk). Where maps are dense, channels last, a
strip lies side by side: a lane loads and stores it 16 bytes at a time, and the ends of the strips
beside it, out of the L1 cache, as wide as they are.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from . import runtime
from .elements import (
    apart_in,
    as_offset,
    divided,
    inline,
    narrow,
    number,
    place,
    side_by_side,
    walk,
    widen,
    within,
)

# Channels of a pixel that a lane computes.
STRIP = 8


@inline
def channels_from(
    pixel,
    c,
    channels,
    channel_stride,
    mask,
    LEAST: tl.constexpr,
    COUNT: tl.constexpr,
):
    """The values of COUNT channels from c + LEAST on, zeros where there are none."""
    out = ()
    for j in tl.static_range(COUNT):
        inside = mask & within(c + (LEAST + j), channels)
        at = as_offset(LEAST + j, True) * channel_stride
        out = out + (widen(tl.load(pixel + at, mask=inside, other=0.0)),)
    return out


@inline
def window_scale(values, FIRST: tl.constexpr, SIZE: tl.constexpr, rate, k):
    """The scale over SIZE of these values."""
    squares = values[FIRST] * values[FIRST]
    for j in tl.static_range(1, SIZE):
        squares += values[FIRST + j] * values[FIRST + j]
    return squares * number(rate, squares) + number(k, squares)


@inline
def inverse_power(scale, beta, ROOTS: tl.constexpr):
    """scale^-beta: 0.75, the usual one, through two ROOTS; any other through exp2 and log2."""
    if ROOTS:
        root = tl.math.rsqrt(scale)
        return root * tl.math.sqrt(root)
    else:
        return tl.math.exp2(tl.math.log2(scale) * number(-beta, scale))


@inline
def powers_of(scale, beta, ROOTS: tl.constexpr):
    """scale^-beta and scale^-1, the latter without a division where there is a root of it."""
    if ROOTS:
        root = tl.math.rsqrt(scale)
        return root * tl.math.sqrt(root), root * root
    else:
        return inverse_power(scale, beta, False), 1.0 / scale


@inline
def strip_of_y(x, beta, rate, k, SIZE: tl.constexpr, ROOTS: tl.constexpr, STRIP: tl.constexpr):
    """The STRIP values of y whose windows x has, from the first channel of the first window on."""
    y = ()
    for own in tl.static_range(STRIP):
        power = inverse_power(window_scale(x, own, SIZE, rate, k), beta, ROOTS)
        y = y + (x[own + SIZE // 2] * power,)
    return y


@inline
def strip_of_grad_x(
    grad_y,
    x,
    c,
    channels,
    mask,
    beta,
    rate,
    k,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    STRIP: tl.constexpr,
):
    """The STRIP values of grad_x from channel c on: x from c - (SIZE - 1) on, grad_y from c -
    (SIZE - 1) // 2."""
    UP: tl.constexpr = (SIZE - 1) // 2
    directs, ratios = (), ()
    for near in tl.static_range(STRIP + SIZE - 1):
        power, inverse = powers_of(window_scale(x, near, SIZE, rate, k), beta, ROOTS)
        # Outside, the scale may be 0 and its power infinite: a select, for a product with zero
        # would be NaN.
        inside = mask & within(c + (near - UP), channels)
        direct = grad_y[near] * power
        ratio = direct * (x[near + SIZE // 2] * inverse)
        directs = directs + (direct,)
        ratios = ratios + (tl.where(inside, ratio, 0.0),)
    grad_x = ()
    for own in tl.static_range(STRIP):
        total = ratios[own]
        for j in tl.static_range(1, SIZE):
            total += ratios[own + j]
        through = x[own + SIZE - 1] * total * number(2.0 * rate * beta, total)
        grad_x = grad_x + (directs[own + UP] - through,)
    return grad_x


@inline
def strips_of(channels, strips, STRIP: tl.constexpr, LANES: tl.constexpr, WIDE: tl.constexpr):
    """Where each lane's strip of a dense map with its channels last begins, with which channel,
    and whether there is one. A pixel is a number of strips."""
    strip = as_offset(tl.program_id(0), WIDE) * LANES + tl.arange(0, LANES)
    _, c = divided(strip, channels // STRIP)
    return strip * STRIP, c * STRIP, strip < strips


@inline
def row_from(
    ptr,
    first,
    c,
    channels,
    mask,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    STRIP: tl.constexpr,
    LANES: tl.constexpr,
    HALO: tl.constexpr,
):
    """channels_from where neighbours in memory are channels: those of the strip that begins at
    ``first``, BEFORE of those below and AFTER of those above it, none more than HALO, a power of
    two."""
    near = tl.arange(0, HALO)[None, :]
    at = first[:, None] + tl.arange(0, STRIP)[None, :]
    own = apart_in(widen(tl.load(ptr + at, mask=mask[:, None], other=0.0)), LANES, STRIP)
    out = ()
    if BEFORE > 0:
        inside = (mask & (c > 0))[:, None]
        at = first[:, None] - HALO + near
        below = apart_in(widen(tl.load(ptr + at, mask=inside, other=0.0)), LANES, HALO)
        for j in tl.static_range(BEFORE):
            out = out + (below[HALO - BEFORE + j],)
    out = out + own
    if AFTER > 0:
        inside = (mask & (c + STRIP < channels))[:, None]
        at = first[:, None] + STRIP + near
        above = apart_in(widen(tl.load(ptr + at, mask=inside, other=0.0)), LANES, HALO)
        for j in tl.static_range(AFTER):
            out = out + (above[j],)
    return out


@triton.jit
def lrn_forward_strip_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, D, H, W), dense, written
    shape,
    x_stride,
    y_stride,
    strips,  # shape with so many strips of channels
    rows,
    columns,
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    """lrn_forward_kernel for STRIP channels of a pixel in one lane, which loads and squares what
    their windows share once."""
    n, c, d, h, w, _, mask = walk(strips, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    c *= STRIP
    pixel = x_ptr + place(n, c, d, h, w, 0, x_stride, False)
    FIRST: tl.constexpr = -(SIZE // 2)
    x = channels_from(pixel, c, shape[1], x_stride[1], mask, FIRST, STRIP + SIZE - 1)
    first = y_ptr + place(n, c, d, h, w, 0, y_stride, False)
    y = strip_of_y(x, beta, rate, k, SIZE, ROOTS, STRIP)
    for own in tl.static_range(STRIP):
        at = as_offset(own, True) * y_stride[1]
        tl.store(first + at, narrow(y[own], y_ptr), mask=mask & (c + own < shape[1]))


@triton.jit
def lrn_backward_strip_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    shape,
    grad_y_stride,
    x_stride,
    grad_x_stride,
    strips,  # shape with so many strips of channels
    rows,
    columns,
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    """lrn_backward_kernel for STRIP channels of a pixel in one lane: each scale is made once."""
    n, c, d, h, w, _, mask = walk(strips, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    c *= STRIP
    UP: tl.constexpr = (SIZE - 1) // 2
    NEAR: tl.constexpr = STRIP + SIZE - 1
    pixel = x_ptr + place(n, c, d, h, w, 0, x_stride, False)
    x = channels_from(pixel, c, shape[1], x_stride[1], mask, 1 - SIZE, NEAR + SIZE - 1)
    pixel = grad_y_ptr + place(n, c, d, h, w, 0, grad_y_stride, False)
    grad_y = channels_from(pixel, c, shape[1], grad_y_stride[1], mask, -UP, NEAR)
    first = grad_x_ptr + place(n, c, d, h, w, 0, grad_x_stride, False)
    grad_x = strip_of_grad_x(grad_y, x, c, shape[1], mask, beta, rate, k, SIZE, ROOTS, STRIP)
    for own in tl.static_range(STRIP):
        at = as_offset(own, True) * grad_x_stride[1]
        tl.store(first + at, narrow(grad_x[own], grad_x_ptr), mask=mask & (c + own < shape[1]))


@triton.jit
def lrn_forward_row_kernel(
    x_ptr,  # (pixels, C), dense
    y_ptr,  # like x, written
    channels,
    strips,  # of all pixels
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    STRIP: tl.constexpr,
    LANES: tl.constexpr,
    HALO: tl.constexpr,
    WIDE: tl.constexpr,
):
    """lrn_forward_strip_kernel where a strip's channels lie side by side."""
    first, c, mask = strips_of(channels, strips, STRIP, LANES, WIDE)
    x = row_from(x_ptr, first, c, channels, mask, SIZE // 2, (SIZE - 1) // 2, STRIP, LANES, HALO)
    y = side_by_side(strip_of_y(x, beta, rate, k, SIZE, ROOTS, STRIP), LANES, STRIP)
    at = first[:, None] + tl.arange(0, STRIP)[None, :]
    tl.store(y_ptr + at, narrow(y, y_ptr), mask=mask[:, None])


@triton.jit
def lrn_backward_row_kernel(
    grad_y_ptr,  # (pixels, C), dense
    x_ptr,  # like grad_y
    grad_x_ptr,  # like grad_y, written
    channels,
    strips,  # of all pixels
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    STRIP: tl.constexpr,
    LANES: tl.constexpr,
    HALO: tl.constexpr,
    WIDE: tl.constexpr,
):
    """lrn_backward_strip_kernel where a strip's channels lie side by side."""
    first, c, mask = strips_of(channels, strips, STRIP, LANES, WIDE)
    REACH: tl.constexpr = SIZE - 1
    UP: tl.constexpr = (SIZE - 1) // 2
    x = row_from(x_ptr, first, c, channels, mask, REACH, REACH, STRIP, LANES, HALO)
    grad_y = row_from(grad_y_ptr, first, c, channels, mask, UP, SIZE // 2, STRIP, LANES, HALO)
    grad_x = strip_of_grad_x(grad_y, x, c, channels, mask, beta, rate, k, SIZE, ROOTS, STRIP)
    at = first[:, None] + tl.arange(0, STRIP)[None, :]
    grad_x = narrow(side_by_side(grad_x, LANES, STRIP), grad_x_ptr)
    tl.store(grad_x_ptr + at, grad_x, mask=mask[:, None])


def launch_strips(
    kernel: Any, maps: list[torch.Tensor], y: torch.Tensor, constants: dict[str, int | float]
) -> None:
    shape, strides = axes_of(*maps, y)
    strips = triton.cdiv(shape[1], STRIP)
    lanes = 512 if y.element_size() == 8 else 1024
    tiling = runtime.tile(y, lanes // STRIP * 2, size=shape[2:], channels=strips)
    runtime.launch(
        kernel,
        runtime.programs(tiling),
        y.device,
        *maps,
        y,
        shape,
        *strides,
        (shape[0], strips, *shape[2:]),
        **tiling,
        **constants,
        STRIP=STRIP,
        WIDE=runtime.wide(*maps, y),
        maxnreg=runtime.ALL_REGISTERS,
    )


def launch_rows(
    kernel: Any,
    maps: list[torch.Tensor],
    y: torch.Tensor,
    constants: dict[str, int | float],
    reach: int,
) -> None:
    """``reach``: how many channels beyond a strip are read at most."""
    strips = y.numel() // STRIP
    lanes = min(128, max(32, runtime.power_of_two(strips)))
    runtime.launch(
        kernel,
        triton.cdiv(strips, lanes),
        y.device,
        *maps,
        y,
        y.shape[1],
        strips,
        **constants,
        STRIP=STRIP,
        LANES=lanes,
        HALO=runtime.power_of_two(max(reach, 1)),
        WIDE=runtime.wide(*maps, y),
        num_warps=lanes // 32,
        maxnreg=runtime.ALL_REGISTERS,
    )


Five = tuple[int, int, int, int, int]


def axes_of(*maps: torch.Tensor) -> tuple[Five, list[Five]]:
    """The shape of these maps and the strides of each, the pixels as one axis where every map's
    strides allow it."""

    def pixels_in_line(x: torch.Tensor) -> bool:
        return all(
            x.stride(axis) == x.stride(axis + 1) * x.shape[axis + 1]
            for axis in range(2, x.ndim - 1)
        )

    if all(map(pixels_in_line, maps)):
        maps = tuple(x.flatten(2) for x in maps)
    return runtime.shape(maps[0].shape), [runtime.stride(x) for x in maps]
