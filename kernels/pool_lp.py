"""Power-average pooling over D, H, W, and its gradient (definition: csrc/pool_lp.h).

    y[n, c, o] = (k / count(o) * sum over t of x[n, c, o * stride + t]^p)^(1 / p)
    grad_x[n, c, i] = x[n, c, i]^(p - 1) * sum over the windows o that hold i and have y[o] != 0 of
                      grad_y[n, c, o] * k / count(o) * y[n, c, o]^(1 - p)

Layouts, tiles and the gathering backward are those of pool.py. Least traffic: forward reads x and
writes y once; backward reads x, y and grad_y and writes grad_x once. PyTorch's chain of eight
operators moves about 30 bytes per element.

Why this form: the exponents are constants of the compiled kernel, so p = 2 costs a product a tap
and a root an output. Whole exponents up to UNROLLED_POWER are products; others go through exp2 and
log2 of the magnitude in float64, whose errors the exponent would magnify in float32, with the sign
that a whole exponent gives.
"""

import math

import torch
import triton
import triton.language as tl

from pydl.contract.pool_lp import LpPoolBackward, LpPoolForward

from . import runtime
from .elements import divide, filled, inline, narrow, place, walk, widen
from .windows import (
    apart,
    averaged,
    cell_at,
    cell_tile,
    cells,
    element_at,
    given,
    sums_of,
    tap_of,
    window_at,
)
from .windows import inside as windows_inside

UNROLLED_POWER = tl.constexpr(8)


@inline
def power(value, EXPONENT: tl.constexpr):
    """value^EXPONENT; NaN where the value is negative and the exponent not whole."""
    if EXPONENT == 0:
        return value * 0 + 1
    elif EXPONENT == 0.5:
        return tl.sqrt(value) if value.dtype == tl.float64 else tl.math.sqrt_rn(value)
    elif EXPONENT % 1 == 0 and EXPONENT > 0 and EXPONENT <= UNROLLED_POWER:
        product = value
        for _ in tl.static_range(1, int(EXPONENT)):
            product = product * value
        return product
    elif EXPONENT % 1 == 0 and EXPONENT < 0 and -EXPONENT <= UNROLLED_POWER:
        product = value
        for _ in tl.static_range(1, int(-EXPONENT)):
            product = product * value
        return divide(value * 0 + 1, product)
    elif EXPONENT % 1 == 0:
        magnitude = tl.math.exp2(tl.math.log2(tl.abs(value).to(tl.float64)) * EXPONENT)
        if EXPONENT % 2 == 0:
            return magnitude.to(value.dtype)
        else:
            return tl.where(value < 0, -magnitude, magnitude).to(value.dtype)
    else:
        return tl.math.exp2(tl.math.log2(value.to(tl.float64)) * EXPONENT).to(value.dtype)


@inline
def over_count(
    total,
    od,
    oh,
    ow,
    x_shape,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    INSIDE: tl.constexpr,
):
    """``total`` for a whole window: times the taps of one, over those of (od, oh, ow) inside."""
    if INSIDE:
        return total
    else:
        taps = (
            averaged(od, x_shape[2], KERNEL[0], STRIDE[0], 0, False)
            * averaged(oh, x_shape[3], KERNEL[1], STRIDE[1], 0, False)
            * averaged(ow, x_shape[4], KERNEL[2], STRIDE[2], 0, False)
        )
        return divide(total * (KERNEL[0] * KERNEL[1] * KERNEL[2]), tl.maximum(taps, 1))


@triton.jit
def lp_pool_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, OD, OH, OW), dense, written
    x_shape,
    x_stride,
    y_shape,
    rows,
    columns,
    P: tl.constexpr,
    ROOT: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    INSIDE: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, od, oh, ow, offset, mask = walk(
        y_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE
    )
    start_d, start_h, start_w = od * STRIDE[0], oh * STRIDE[1], ow * STRIDE[2]
    corner = x_ptr + place(n, c, start_d, start_h, start_w, 0, x_stride, False)
    total = filled([ROWS, COLUMNS], 0.0, x_ptr)
    for tap in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
        at, inside = tap_of(
            tap, start_d, start_h, start_w, mask, x_shape, x_stride, KERNEL, (1, 1, 1), INSIDE
        )
        value = power(widen(tl.load(corner + at, mask=inside, other=1.0)), P)
        total += value if INSIDE else tl.where(inside, value, 0.0)  # [ROWS, COLUMNS]
    total = over_count(total, od, oh, ow, x_shape, KERNEL, STRIDE, INSIDE)
    tl.store(y_ptr + offset, narrow(power(total, ROOT), y_ptr), mask=mask)


def lp_pool_forward(call: LpPoolForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, norm_type, kernel_size, stride, _ = call
    y = call.results()
    if y.numel() == 0:
        return y
    tiling = runtime.tile(y)
    runtime.launch(
        lp_pool_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.shape(y.shape),
        **tiling,
        P=float(norm_type),
        ROOT=1 / norm_type,
        KERNEL=runtime.spread(kernel_size, 1),
        STRIDE=runtime.spread(stride, 1),
        INSIDE=windows_inside(x, y.shape[2:], kernel_size, stride, [0, 0, 0]),
        UNROLL=runtime.unroll(math.prod(kernel_size)),
        WIDE=runtime.wide(x, y),
        maxnreg=runtime.ALL_REGISTERS,
    )
    return y


@triton.jit
def lp_pool_backward_kernel(
    grad_y_ptr,  # (N, C, OD, OH, OW), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # like grad_y, any strides
    grad_x_ptr,  # like x, dense, written
    y_shape,
    grad_y_stride,
    y_stride,
    x_shape,
    x_stride,
    grad_x_stride,
    cells,  # N, C and how many cells each axis has
    rows,
    columns,
    P: tl.constexpr,
    TOGETHER: tl.constexpr,  # the strides of grad_y are those of y
    CELL: tl.constexpr,
    CANDIDATES: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    INSIDE: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(cells, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    d, last_d, reach_d = cell_at(d, CELL[0], STRIDE[0], 0)
    h, last_h, reach_h = cell_at(h, CELL[1], STRIDE[1], 0)
    w, last_w, reach_w = cell_at(w, CELL[2], STRIDE[2], 0)
    grad_y_last = grad_y_ptr + place(n, c, last_d, last_h, last_w, 0, grad_y_stride, False)
    y_step = grad_y_stride if TOGETHER else y_stride
    y_last = y_ptr + place(n, c, last_d, last_h, last_w, 0, y_step, False)
    totals = sums_of(CELL[0] * CELL[1] * CELL[2], ROWS, COLUMNS, grad_y_ptr)
    for which in tl.range(
        0, CANDIDATES[0] * CANDIDATES[1] * CANDIDATES[2], loop_unroll_factor=UNROLL
    ):
        back_d, back_h, back_w, there = window_at(
            which, last_d, last_h, last_w, mask, y_shape, CANDIDATES
        )
        root = widen(tl.load(y_last - apart(back_d, back_h, back_w, y_step), there, other=0.0))
        grad_y = tl.load(
            grad_y_last - apart(back_d, back_h, back_w, grad_y_stride), there, other=0.0
        )
        share = over_count(
            widen(grad_y),
            last_d - back_d,
            last_h - back_h,
            last_w - back_w,
            x_shape,
            KERNEL,
            STRIDE,
            INSIDE,
        )
        share *= power(tl.where(root != 0, root, 1.0), 1 - P)
        share = tl.where(root != 0, share, 0.0)  # [ROWS, COLUMNS]
        totals = given(
            totals,
            share,
            reach_d + back_d * STRIDE[0],
            reach_h + back_h * STRIDE[1],
            reach_w + back_w * STRIDE[2],
            CELL,
            KERNEL,
        )
    x_first = x_ptr + place(n, c, d, h, w, 0, x_stride, False)
    first = grad_x_ptr + place(n, c, d, h, w, 0, grad_x_stride, False)
    for i in tl.static_range(CELL[0] * CELL[1] * CELL[2]):
        at, there = element_at(i, d, h, w, mask, x_shape, x_stride, CELL)
        x = widen(tl.load(x_first + at, mask=there, other=1.0))
        at, there = element_at(i, d, h, w, mask, x_shape, grad_x_stride, CELL)
        grad_x = totals[i] * power(x, P - 1)
        tl.store(first + at, narrow(grad_x, grad_x_ptr), mask=there)


def lp_pool_backward(call: LpPoolBackward) -> torch.Tensor:
    """grad_x, in the layout of ``x``."""
    grad_y, x, y, norm_type, kernel_size, stride = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    none = [0] * len(stride)
    count, cell = cells(grad_x.shape[2:], kernel_size, stride, none)
    tiling = cell_tile(grad_x, count, cell["CELL"])
    runtime.launch(
        lp_pool_backward_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        x,
        y,
        grad_x,
        runtime.shape(y.shape),
        runtime.stride(grad_y),
        runtime.stride(y),
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.stride(grad_x),
        runtime.shape((*x.shape[:2], *count)),
        **tiling,
        P=float(norm_type),
        **cell,
        TOGETHER=grad_y.stride() == y.stride(),
        INSIDE=windows_inside(x, y.shape[2:], kernel_size, stride, none),
        KERNEL=runtime.spread(kernel_size, 1),
        STRIDE=runtime.spread(stride, 1),
        WIDE=runtime.wide(grad_y, x, y, grad_x),
    )
    return grad_x
