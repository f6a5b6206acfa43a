"""Local response normalisation across channels and its gradient (definition: csrc/lrn.h).

    scale[c] = k + alpha / size * sum over c' of x[c']^2,
               c - size / 2 <= c' <= c + (size - 1) / 2, clipped to [0, C)
    y        = x * scale^-beta
    grad_x   = grad_y * scale^-beta - 2 * alpha * beta / size * x * sum over c' of grad_y * x *
               scale^(-beta - 1), c - (size - 1) / 2 <= c' <= c + size / 2: the window transposed

Layouts: x and grad_y have any strides; y and grad_x are dense, and a program covers ROWS x COLUMNS
elements of what it writes in the order of its memory (elements.walk). Forward cannot avoid reading
x and writing y once, backward reading grad_y and x and writing grad_x once; no scale is saved,
backward recomputes it. The arithmetic, size and size^2 products per element, hides behind the
memory for the sizes that networks use (5 in AlexNet and GoogLeNet).

Why this form: each element adds up its own window, so a NaN or an infinity spoils the windows it is
in and no others, and the result does not depend on where a program starts; a running sum over the
channels would do neither. The neighbours' loads hit the L1 cache: channels last they lie in the
same lines, contiguous a program covers neighbouring channels of a narrow strip of pixels (WIDEST).
With the loops unrolled the compiler merges many of backward's size^2 loads of x.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from pydl.contract.lrn import LrnBackward, LrnForward

from . import runtime
from .elements import as_offset, filled, inline, narrow, number, place, walk, widen, within

# Larger windows, which no known network has, run in loops: unrolled they would compile for minutes.
UNROLLED_SIZE = 7
# Channels of a pixel that a lane computes where pixels are neighbours in memory.
STRIP = 8
# The most columns of a tile.
WIDEST = 64


@inline
def scale_of(
    x_pixel,
    c,
    channels,
    channel_stride,
    mask,
    zero,
    rate,
    k,
    SIZE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """k + rate * the sum of squares in the window of channel c. ``zero``: zeros of the result's
    dtype and shape."""
    squares = zero
    for j in tl.range(0, SIZE, loop_unroll_factor=UNROLL):
        near = c + (j - SIZE // 2)
        inside = mask & (near >= 0) & (near < channels)
        x = widen(tl.load(x_pixel + near * channel_stride, mask=inside, other=0.0))
        squares += x * x
    return squares * number(rate, zero) + number(k, zero)


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


@triton.jit
def lrn_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, D, H, W), dense, written
    shape,
    x_stride,
    rows,
    columns,
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    x_pixel = x_ptr + n * x_stride[0] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    scale = scale_of(x_pixel, c, shape[1], x_stride[1], mask, zero, rate, k, SIZE, UNROLL)
    x = widen(tl.load(x_pixel + c * x_stride[1], mask=mask, other=0.0))
    tl.store(y_ptr + offset, narrow(x * inverse_power(scale, beta, ROOTS), y_ptr), mask=mask)


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
    for own in tl.static_range(STRIP):
        scale = window_scale(x, own, SIZE, rate, k)
        y = x[own + SIZE // 2] * inverse_power(scale, beta, ROOTS)
        at = as_offset(own, True) * y_stride[1]
        tl.store(first + at, narrow(y, y_ptr), mask=mask & (c + own < shape[1]))


def lrn_forward(call: LrnForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, size, alpha, beta, k = call
    y = call.results()
    if y.numel() == 0:
        return y
    if _in_strips(y, size):
        _launch_strips(lrn_forward_strip_kernel, [x], y, _constants(size, alpha, beta, k))
        return y
    # Four elements a thread of the halves, whose window is widened in registers; else eight.
    tiling = runtime.tile(y, 512 if y.element_size() == 2 else 1024, WIDEST)
    shape, (x_stride,) = _axes(x)
    runtime.launch(
        lrn_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        shape,
        x_stride,
        **tiling,
        **_constants(size, alpha, beta, k),
        WIDE=runtime.wide(x, y),
    )
    return y


@triton.jit
def lrn_backward_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    shape,
    grad_y_stride,
    x_stride,
    rows,
    columns,
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    grad_y_pixel = (
        grad_y_ptr
        + n * grad_y_stride[0]
        + d * grad_y_stride[2]
        + h * grad_y_stride[3]
        + w * grad_y_stride[4]
    )
    x_pixel = x_ptr + n * x_stride[0] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    ratios = zero
    for j in tl.range(0, SIZE, loop_unroll_factor=UNROLL):
        near = c + (j - (SIZE - 1) // 2)
        inside = mask & (near >= 0) & (near < shape[1])
        # Under the mask of the program, not of this neighbour: only loads with equal masks are
        # merged.
        scale = scale_of(x_pixel, near, shape[1], x_stride[1], mask, zero, rate, k, SIZE, UNROLL)
        near_grad_y = widen(tl.load(grad_y_pixel + near * grad_y_stride[1], mask=inside, other=0.0))
        near_x = widen(tl.load(x_pixel + near * x_stride[1], mask=inside, other=0.0))
        # Outside, the scale may be 0 and its power infinite: a select, for a product with zero
        # would be NaN.
        ratio = inverse_power(scale, beta, ROOTS) / scale
        ratios += tl.where(inside, near_grad_y * near_x * ratio, 0.0)
    scale = scale_of(x_pixel, c, shape[1], x_stride[1], mask, zero, rate, k, SIZE, UNROLL)
    grad_y = widen(tl.load(grad_y_pixel + c * grad_y_stride[1], mask=mask, other=0.0))
    x = widen(tl.load(x_pixel + c * x_stride[1], mask=mask, other=0.0))
    grad_x = grad_y * inverse_power(scale, beta, ROOTS)
    grad_x -= x * ratios * number(2.0 * rate * beta, zero)
    tl.store(grad_x_ptr + offset, narrow(grad_x, grad_x_ptr), mask=mask)


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
    powers, ratios = (), ()
    for near in tl.static_range(NEAR):
        scale = window_scale(x, near, SIZE, rate, k)
        power = inverse_power(scale, beta, ROOTS)
        # Outside, the scale may be 0 and its power infinite: a select, for a product with zero
        # would be NaN.
        inside = mask & within(c + (near - UP), shape[1])
        ratio = grad_y[near] * x[near + SIZE // 2] * (power / scale)
        powers = powers + (power,)
        ratios = ratios + (tl.where(inside, ratio, 0.0),)
    first = grad_x_ptr + place(n, c, d, h, w, 0, grad_x_stride, False)
    for own in tl.static_range(STRIP):
        total = ratios[own]
        for j in tl.static_range(1, SIZE):
            total += ratios[own + j]
        grad_x = grad_y[own + UP] * powers[own + UP]
        grad_x -= x[own + SIZE - 1] * total * number(2.0 * rate * beta, total)
        at = as_offset(own, True) * grad_x_stride[1]
        tl.store(first + at, narrow(grad_x, grad_x_ptr), mask=mask & (c + own < shape[1]))


def lrn_backward(call: LrnBackward) -> torch.Tensor:
    """grad_x, in the layout of ``x``."""
    grad_y, x, size, alpha, beta, k = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    if _in_strips(grad_x, size):
        constants = _constants(size, alpha, beta, k)
        _launch_strips(lrn_backward_strip_kernel, [grad_y, x], grad_x, constants)
        return grad_x
    # Four elements a thread, two in float64: with the unrolled windows in registers there is no
    # room for more.
    tiling = runtime.tile(grad_x, 256 if grad_x.dtype == torch.float64 else 512, WIDEST)
    shape, (grad_y_stride, x_stride) = _axes(grad_y, x)
    runtime.launch(
        lrn_backward_kernel,
        runtime.programs(tiling),
        x.device,
        grad_y,
        x,
        grad_x,
        shape,
        grad_y_stride,
        x_stride,
        **tiling,
        **_constants(size, alpha, beta, k),
        WIDE=(wide := runtime.wide(grad_y, x, grad_x)),
        maxnreg=runtime.ALL_REGISTERS if wide else None,
    )
    return grad_x


def _in_strips(y: torch.Tensor, size: int) -> bool:
    """Whether neighbouring lanes have neighbouring pixels, each of a strip of channels."""
    return not runtime.channels_last(y) and size <= UNROLLED_SIZE


def _launch_strips(
    kernel: Any, maps: list[torch.Tensor], y: torch.Tensor, constants: dict[str, int | float]
) -> None:
    shape, strides = _axes(*maps, y)
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
    )


Five = tuple[int, int, int, int, int]


def _axes(*maps: torch.Tensor) -> tuple[Five, list[Five]]:
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


def _constants(size: int, alpha: float, beta: float, k: float) -> dict[str, int | float]:
    """What of the definition is no tensor."""
    return {
        "rate": float(alpha) / size,
        "beta": float(beta),
        "k": float(k),
        "SIZE": size,
        "ROOTS": beta == 0.75,
        "UNROLL": size if size <= UNROLLED_SIZE else 1,
    }
