"""Response normalisation within a channel and its gradient (definition: csrc/spatial_norm.h).

    scale[p] = k + alpha / size^axes * sum over p' of x[p']^2,
               p - size / 2 <= p' <= p + (size - 1) / 2 along every axis, clipped to the map
    y        = x * scale^-beta
    grad_x   = grad_y * scale^-beta - 2 * alpha * beta / size^axes * x * sum over p' of grad_y * x *
               scale^(-beta - 1), p - (size - 1) / 2 <= p' <= p + size / 2: the box transposed

Layouts: x and grad_y have any strides; what is written is dense, and a program covers ROWS x
COLUMNS elements of it in the order of its memory (elements.walk). Forward cannot avoid reading x
and writing y once, backward reading grad_y and x and writing grad_x once.

Why this form: each element adds up its own box, so a NaN or an infinity spoils the boxes it is in
and no others, and the result does not depend on where a program starts. The neighbours' loads hit
the L1 cache. A box of boxes would be size^4 loads for a plane, so backward makes its terms in one
launch, in the precision sums are in, and adds them up in a second.
"""

import torch
import triton
import triton.language as tl

from pydl import layout
from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward

from . import runtime
from .elements import filled, inline, narrow, number, walk, widen
from .lrn_strips import inverse_power


@inline
def box_sum(
    values_ptr,
    stride,
    shape,
    n,
    c,
    d,
    h,
    w,
    mask,
    zero,
    SIZE: tl.constexpr,
    BEFORE: tl.constexpr,
    UNROLL: tl.constexpr,
    SQUARED: tl.constexpr,
):
    """The sum of the values, or of their squares, in the box of SIZE (D, H, W) positions that
    reaches BEFORE of them below (n, c, d, h, w). ``zero``: zeros of the result's dtype and
    shape."""
    map_ptr = values_ptr + n * stride[0] + c * stride[1]
    total = zero
    for tap in tl.range(0, SIZE[0] * SIZE[1] * SIZE[2], loop_unroll_factor=UNROLL):
        near_d = d + (tap // (SIZE[1] * SIZE[2]) - BEFORE[0])
        near_h = h + (tap // SIZE[2] % SIZE[1] - BEFORE[1])
        near_w = w + (tap % SIZE[2] - BEFORE[2])
        inside = mask & (near_d >= 0) & (near_d < shape[2]) & (near_h >= 0) & (near_h < shape[3])
        inside = inside & (near_w >= 0) & (near_w < shape[4])
        near_ptr = map_ptr + near_d * stride[2] + near_h * stride[3] + near_w * stride[4]
        value = widen(tl.load(near_ptr, mask=inside, other=0.0))
        total += value * value if SQUARED else value
    return total


@inline
def element(ptr, stride, n, c, d, h, w):
    """The address of one element of a map."""
    return ptr + n * stride[0] + c * stride[1] + d * stride[2] + h * stride[3] + w * stride[4]


@triton.jit
def spatial_norm_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, D, H, W), dense, written
    shape,
    x_stride,
    rows,
    columns,
    rate: tl.float64,
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    squares = box_sum(x_ptr, x_stride, shape, n, c, d, h, w, mask, zero, SIZE, BEFORE, UNROLL, True)
    x = widen(tl.load(element(x_ptr, x_stride, n, c, d, h, w), mask=mask, other=0.0))
    y = x * inverse_power(squares * number(rate, zero) + number(k, zero), beta, ROOTS)
    tl.store(y_ptr + offset, narrow(y, y_ptr), mask=mask)


@triton.jit
def spatial_norm_term_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    direct_ptr,  # (N, C, D, H, W), dense, written: grad_y * scale^-beta
    term_ptr,  # like direct, written: direct * x / scale
    shape,
    grad_y_stride,
    x_stride,
    rows,
    columns,
    rate: tl.float64,
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    squares = box_sum(x_ptr, x_stride, shape, n, c, d, h, w, mask, zero, SIZE, BEFORE, UNROLL, True)
    scale = squares * number(rate, zero) + number(k, zero)
    grad_y = widen(tl.load(element(grad_y_ptr, grad_y_stride, n, c, d, h, w), mask=mask, other=0.0))
    x = widen(tl.load(element(x_ptr, x_stride, n, c, d, h, w), mask=mask, other=0.0))
    direct = grad_y * inverse_power(scale, beta, ROOTS)
    tl.store(direct_ptr + offset, direct, mask=mask)
    tl.store(term_ptr + offset, direct * (x / scale), mask=mask)


@triton.jit
def spatial_norm_collect_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    direct_ptr,  # (N, C, D, H, W), dense
    term_ptr,  # like direct
    grad_x_ptr,  # like direct, written
    shape,
    x_stride,
    term_stride,
    rows,
    columns,
    rate: tl.float64,
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    through = box_sum(
        term_ptr, term_stride, shape, n, c, d, h, w, mask, zero, SIZE, AFTER, UNROLL, False
    )
    x = widen(tl.load(element(x_ptr, x_stride, n, c, d, h, w), mask=mask, other=0.0))
    direct = tl.load(direct_ptr + offset, mask=mask, other=0.0)
    grad_x = direct - x * through * number(2.0 * rate * beta, zero)
    tl.store(grad_x_ptr + offset, narrow(grad_x, grad_x_ptr), mask=mask)


def spatial_norm_forward(call: SpatialNormForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, size, alpha, beta, k = call
    y = call.results()
    if y.numel() == 0:
        return y
    tiling = runtime.tile(y, 512)
    runtime.launch(
        spatial_norm_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        **tiling,
        **_constants(x, size, alpha, beta, k),
        WIDE=runtime.wide(x, y),
    )
    return y


def spatial_norm_backward(call: SpatialNormBackward) -> torch.Tensor:
    """grad_x, in the layout of ``x``."""
    grad_y, x, size, alpha, beta, k = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    precise = layout.sums_dtype(x)
    direct, term = (layout.empty(x.shape, x, dtype=precise) for _ in range(2))
    tiling = runtime.tile(grad_x, 512)
    shape = runtime.shape(x.shape)
    constants = _constants(x, size, alpha, beta, k)
    wide = runtime.wide(grad_y, x, grad_x)
    programs = runtime.programs(tiling)
    runtime.launch(
        spatial_norm_term_kernel,
        programs,
        x.device,
        grad_y,
        x,
        direct,
        term,
        shape,
        runtime.stride(grad_y),
        runtime.stride(x),
        **tiling,
        **constants,
        WIDE=wide,
    )
    runtime.launch(
        spatial_norm_collect_kernel,
        programs,
        x.device,
        x,
        direct,
        term,
        grad_x,
        shape,
        runtime.stride(x),
        runtime.stride(term),
        **tiling,
        **constants,
        WIDE=wide,
    )
    return grad_x


def _constants(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> dict:
    """What of the definition is no tensor. The box reaches no further than the map."""
    before = [min(size // 2, n - 1) for n in x.shape[2:]]
    after = [min((size - 1) // 2, n - 1) for n in x.shape[2:]]
    box = [b + a + 1 for b, a in zip(before, after, strict=True)]
    box_size = runtime.spread(box, 1)
    return {
        "rate": float(alpha) / float(size) ** (x.ndim - 2),
        "beta": float(beta),
        "k": float(k),
        "SIZE": box_size,
        "BEFORE": runtime.spread(before, 0),
        "AFTER": runtime.spread(after, 0),
        "ROOTS": beta == 0.75,
        "UNROLL": runtime.unroll(box_size[0] * box_size[1] * box_size[2]),
    }
