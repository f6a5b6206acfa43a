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
from .elements import divide, filled, inline, narrow, read_at, walk, widen, window_over
from .pool import averaged, candidates

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
def over_count(total, od, oh, ow, x_shape, KERNEL: tl.constexpr, STRIDE: tl.constexpr):
    """``total`` for a whole window: times the taps of one, over those of (od, oh, ow) inside."""
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
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, od, oh, ow, offset, mask = walk(
        y_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE
    )
    plane = x_ptr + n * x_stride[0] + c * x_stride[1]
    total = filled([ROWS, COLUMNS], 0.0, x_ptr)
    for tap in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
        d, in_d = read_at(od, tap // (KERNEL[1] * KERNEL[2]), x_shape[2], STRIDE[0], 0, 1)
        h, in_h = read_at(oh, tap // KERNEL[2] % KERNEL[1], x_shape[3], STRIDE[1], 0, 1)
        w, in_w = read_at(ow, tap % KERNEL[2], x_shape[4], STRIDE[2], 0, 1)
        inside = mask & in_d & in_h & in_w
        value = tl.load(
            plane + d * x_stride[2] + h * x_stride[3] + w * x_stride[4], mask=inside, other=1.0
        )
        total += tl.where(inside, power(widen(value), P), 0.0)  # [ROWS, COLUMNS]
    total = over_count(total, od, oh, ow, x_shape, KERNEL, STRIDE)
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
        UNROLL=runtime.unroll(math.prod(kernel_size)),
        WIDE=runtime.wide(x, y),
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
    rows,
    columns,
    P: tl.constexpr,
    CANDIDATES: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(x_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    grad_y_plane = grad_y_ptr + n * grad_y_stride[0] + c * grad_y_stride[1]
    y_plane = y_ptr + n * y_stride[0] + c * y_stride[1]
    total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
    for which in tl.range(
        0, CANDIDATES[0] * CANDIDATES[1] * CANDIDATES[2], loop_unroll_factor=UNROLL
    ):
        which_d = which // (CANDIDATES[1] * CANDIDATES[2])
        which_h = which // CANDIDATES[2] % CANDIDATES[1]
        which_w = which % CANDIDATES[2]
        od, _, on_d = window_over(d, which_d, y_shape[2], CANDIDATES[0], KERNEL[0], STRIDE[0], 0, 1)
        oh, _, on_h = window_over(h, which_h, y_shape[3], CANDIDATES[1], KERNEL[1], STRIDE[1], 0, 1)
        ow, _, on_w = window_over(w, which_w, y_shape[4], CANDIDATES[2], KERNEL[2], STRIDE[2], 0, 1)
        covered = mask & on_d & on_h & on_w
        root = tl.load(
            y_plane + od * y_stride[2] + oh * y_stride[3] + ow * y_stride[4],
            mask=covered,
            other=0.0,
        )
        grad_y = tl.load(
            grad_y_plane + od * grad_y_stride[2] + oh * grad_y_stride[3] + ow * grad_y_stride[4],
            mask=covered,
            other=0.0,
        )
        root = widen(root)
        share = over_count(widen(grad_y), od, oh, ow, x_shape, KERNEL, STRIDE)
        passes = covered & (root != 0)
        share = share * power(tl.where(passes, root, 1.0), 1 - P)
        total += tl.where(passes, share, 0.0)  # [ROWS, COLUMNS]
    x = tl.load(
        x_ptr
        + n * x_stride[0]
        + c * x_stride[1]
        + d * x_stride[2]
        + h * x_stride[3]
        + w * x_stride[4],
        mask=mask,
        other=1.0,
    )
    grad_x = total * power(widen(x), P - 1)
    tl.store(grad_x_ptr + offset, narrow(grad_x, grad_x_ptr), mask=mask)


def lp_pool_backward(call: LpPoolBackward) -> torch.Tensor:
    """grad_x, in the layout of ``x``."""
    grad_y, x, y, norm_type, kernel_size, stride = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    tiling = runtime.tile(grad_x)
    over = candidates(kernel_size, stride)
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
        **tiling,
        P=float(norm_type),
        CANDIDATES=over,
        KERNEL=runtime.spread(kernel_size, 1),
        STRIDE=runtime.spread(stride, 1),
        UNROLL=runtime.unroll(math.prod(over)),
        WIDE=runtime.wide(grad_y, x, y, grad_x),
    )
    return grad_x
