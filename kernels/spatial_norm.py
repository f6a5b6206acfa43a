"""Response normalisation within a channel and its gradient (definition: csrc/spatial_norm.h).

    scale[p] = k + alpha / size^axes * sum over p' of x[p']^2,
               p - size / 2 <= p' <= p + (size - 1) / 2 along every axis, clipped to the map
    y        = x * scale^-beta
    grad_x   = grad_y * scale^-beta - 2 * alpha * beta / size^axes * x * sum over p' of grad_y * x *
               scale^(-beta - 1), p - (size - 1) / 2 <= p' <= p + size / 2: the box transposed

Layouts: x and grad_y have any strides; what is written is dense, and a program covers ROWS x
COLUMNS strips of it, STRIP rows each, in the order of its memory (elements.walk). Forward cannot
avoid reading x and writing y once, backward reading grad_y and x and writing grad_x once.

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
from .elements import as_offset, filled, inline, narrow, number, place, walk, widen, within
from .lrn_strips import inverse_power, powers_of

# Rows of a strip where a lane has several channels, and loads that are unrolled at most.
ROWS_OF_CHANNELS = 4
MOST_LOADS = 100


@inline
def element(ptr, stride, n, c, d, h, w):
    """The address of one element of a map."""
    return ptr + place(n, c, d, h, w, 0, stride, False)


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
def strip_sums(
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
    STRIP: tl.constexpr,
    UNROLL: tl.constexpr,
    SQUARED: tl.constexpr,
):
    """box_sum of STRIP positions, one under the other from (n, c, d, h, w) on, and the values of
    the middle of each box. What a row of values gives to the boxes that it is in is the same for
    all of them and added up once."""
    DEPTH: tl.constexpr = SIZE[0]
    HEIGHT: tl.constexpr = SIZE[1]
    WIDTH: tl.constexpr = SIZE[2]
    here = element(values_ptr, stride, n, c, d, h, w)
    if STRIP == 1:
        total = box_sum(
            values_ptr, stride, shape, n, c, d, h, w, mask, zero, SIZE, BEFORE, UNROLL, SQUARED
        )
        return (total,), (widen(tl.load(here, mask=mask, other=0.0)),)
    inside_w = ()
    for k in tl.static_range(WIDTH):
        inside_w = inside_w + (mask & within(w + (k - BEFORE[2]), shape[4]),)
    values, rows = (), ()
    for j in tl.static_range(STRIP + HEIGHT - 1):
        row, value = zero, zero
        for i in tl.static_range(DEPTH):
            inside = within(h + (j - BEFORE[1]), shape[3])
            if DEPTH > 1:
                inside = inside & within(d + (i - BEFORE[0]), shape[2])
            at = as_offset(i - BEFORE[0], True) * stride[2]
            row_ptr = here + (at + as_offset(j - BEFORE[1], True) * stride[3])
            for k in tl.static_range(WIDTH):
                near_ptr = row_ptr + as_offset(k - BEFORE[2], True) * stride[4]
                near = widen(tl.load(near_ptr, mask=inside & inside_w[k], other=0.0))
                row += near * near if SQUARED else near
                if i == BEFORE[0] and k == BEFORE[2]:
                    value = near
        values, rows = values + (value,), rows + (row,)
    sums, middles = (), ()
    for own in tl.static_range(STRIP):
        total = rows[own]
        for j in tl.static_range(1, HEIGHT):
            total += rows[own + j]
        sums, middles = sums + (total,), middles + (values[own + BEFORE[1]],)
    return sums, middles


@triton.jit
def spatial_norm_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, D, H, W), dense, written
    shape,
    x_stride,
    y_stride,
    strips,  # shape with so many strips of rows
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
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(strips, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    h *= STRIP
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    squares, x = strip_sums(
        x_ptr, x_stride, shape, n, c, d, h, w, mask, zero, SIZE, BEFORE, STRIP, UNROLL, True
    )
    first = element(y_ptr, y_stride, n, c, d, h, w)
    for own in tl.static_range(STRIP):
        scale = squares[own] * number(rate, zero) + number(k, zero)
        y = narrow(x[own] * inverse_power(scale, beta, ROOTS), y_ptr)
        at = as_offset(own, True) * y_stride[3]
        tl.store(first + at, y, mask=mask & (h + own < shape[3]))


@triton.jit
def spatial_norm_term_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    direct_ptr,  # (N, C, D, H, W), dense, written: grad_y * scale^-beta
    term_ptr,  # like direct, written: direct * x / scale
    shape,
    grad_y_stride,
    x_stride,
    term_stride,
    strips,  # shape with so many strips of rows
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
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(strips, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    h *= STRIP
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    squares, x = strip_sums(
        x_ptr, x_stride, shape, n, c, d, h, w, mask, zero, SIZE, BEFORE, STRIP, UNROLL, True
    )
    first = element(grad_y_ptr, grad_y_stride, n, c, d, h, w)
    to = place(n, c, d, h, w, 0, term_stride, False)
    for own in tl.static_range(STRIP):
        there = mask & (h + own < shape[3])
        at = as_offset(own, True) * grad_y_stride[3]
        grad_y = widen(tl.load(first + at, mask=there, other=0.0))
        scale = squares[own] * number(rate, zero) + number(k, zero)
        power, inverse = powers_of(scale, beta, ROOTS)
        direct = grad_y * power
        at = to + as_offset(own, True) * term_stride[3]
        tl.store(direct_ptr + at, direct, mask=there)
        tl.store(term_ptr + at, direct * (x[own] * inverse), mask=there)


@triton.jit
def spatial_norm_collect_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    direct_ptr,  # (N, C, D, H, W), dense
    term_ptr,  # like direct
    grad_x_ptr,  # like direct, written
    shape,
    x_stride,
    term_stride,
    strips,  # shape with so many strips of rows
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
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(strips, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    h *= STRIP
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    through, _ = strip_sums(
        term_ptr, term_stride, shape, n, c, d, h, w, mask, zero, SIZE, AFTER, STRIP, UNROLL, False
    )
    first_x = element(x_ptr, x_stride, n, c, d, h, w)
    to = place(n, c, d, h, w, 0, term_stride, False)
    for own in tl.static_range(STRIP):
        there = mask & (h + own < shape[3])
        at = as_offset(own, True) * x_stride[3]
        x = widen(tl.load(first_x + at, mask=there, other=0.0))
        at = to + as_offset(own, True) * term_stride[3]
        direct = tl.load(direct_ptr + at, mask=there, other=0.0)
        grad_x = direct - x * through[own] * number(2.0 * rate * beta, zero)
        tl.store(grad_x_ptr + at, narrow(grad_x, grad_x_ptr), mask=there)


def spatial_norm_forward(call: SpatialNormForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, size, alpha, beta, k = call
    y = call.results()
    if y.numel() == 0:
        return y
    constants = _constants(x, size, alpha, beta, k)
    strips, tiling = _strips(y, constants["SIZE"])
    runtime.launch(
        spatial_norm_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.stride(y),
        strips,
        **tiling,
        **constants,
        WIDE=runtime.wide(x, y),
        maxnreg=runtime.ALL_REGISTERS,
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
    shape = runtime.shape(x.shape)
    constants = _constants(x, size, alpha, beta, k)
    strips, tiling = _strips(grad_x, constants["SIZE"])
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
        runtime.stride(term),
        strips,
        **tiling,
        **constants,
        WIDE=wide,
        maxnreg=runtime.ALL_REGISTERS,
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
        strips,
        **tiling,
        **constants,
        WIDE=wide,
        maxnreg=runtime.ALL_REGISTERS,
    )
    return grad_x


def _strips(y: torch.Tensor, box: tuple[int, int, int]) -> tuple[tuple[int, ...], dict]:
    """The shape of ``y`` with so many strips of rows, and how programs cover them."""
    depth, height, width = runtime.spread(y.shape[2:], 1)
    last = runtime.channels_last(y)
    most = MOST_LOADS // (box[0] * box[2]) - (box[1] - 1)
    strip = ROWS_OF_CHANNELS if last else runtime.strip_of(height, 1, box[1], most)
    if height == 1 or strip > most:
        strip = 1
    size = depth, triton.cdiv(height, strip), width
    elements = 512 if last or strip == 1 else 128
    if y.dtype == torch.float64 and strip > 1:
        elements = min(elements, 256)  # two registers each
    return (*y.shape[:2], *size), {
        **runtime.tile(y, elements, size=size),
        "STRIP": strip,
    }


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
