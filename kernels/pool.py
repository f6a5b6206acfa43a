"""Max and average pooling over D, H, W, and their gradients (definitions: csrc/pool.h).

    max      y[n, c, o] = max over t of x[n, c, o * stride - padding + t * dilation],
             padding being -inf
    average  y[n, c, o] = sum over t of x[n, c, o * stride - padding + t] / divisor(o)

The gradients gather: an element of grad_x adds up the at most ceil(reach / stride) windows an axis
that cover it, in scan order. So there are no atomics and nothing to fill with zeros first, every
element is written once, and the sums repeat bit for bit.

Layouts: x and grad_y have any strides; y, index and grad_x are dense, and a program covers ROWS x
COLUMNS elements of what it writes in the order of its memory (elements.walk). It cannot avoid
reading x once and writing y once (and a byte of index an output, eight where PyTorch's flat
position is wanted), one comparison or addition a tap. The taps that windows share come out of the
L1 cache: neighbouring windows are neighbouring lanes.

Why this form: one kernel for both layouts and 1 to 3 axes. The taps of small windows are unrolled
(runtime.unroll), so their loads are in flight together; large windows run in a loop.
"""

import math

import torch
import triton
import triton.language as tl

from pydl.contract.pool import AvgPoolBackward, AvgPoolForward, MaxPoolBackward, MaxPoolForward

from . import pool_adaptive_dense, pool_adaptive_dense_backward, runtime
from .elements import filled, narrow, place, walk, widen
from .windows import (
    LARGEST_CELL,
    apart,
    average,
    cell_at,
    cell_tile,
    cells,
    element_at,
    first_tap,
    given,
    sums_of,
    tap_of,
    tap_over,
    window_at,
)
from .windows import inside as windows_inside


@triton.jit
def max_pool_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, OD, OH, OW), dense, written
    index_ptr,  # like y: uint8 (INDEX "offset") or int64 ("flat"), written; not touched for "none"
    x_shape,
    x_stride,
    y_shape,
    rows,
    columns,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    INDEX: tl.constexpr,
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
    start_d, start_h = od * STRIDE[0] - PADDING[0], oh * STRIDE[1] - PADDING[1]
    start_w = ow * STRIDE[2] - PADDING[2]
    corner = x_ptr + place(n, c, start_d, start_h, start_w, 0, x_stride, False)
    best = filled([ROWS, COLUMNS], float("-inf"), x_ptr)
    best_tap = tl.zeros([ROWS, COLUMNS], tl.int32)
    if not INSIDE:
        d, any_d = first_tap(start_d, x_shape[2], KERNEL[0], DILATION[0])
        h, any_h = first_tap(start_h, x_shape[3], KERNEL[1], DILATION[1])
        w, any_w = first_tap(start_w, x_shape[4], KERNEL[2], DILATION[2])
        best_tap += tl.where(any_d & any_h & any_w, (d * KERNEL[1] + h) * KERNEL[2] + w, -1)
    for tap in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
        at, inside = tap_of(
            tap, start_d, start_h, start_w, mask, x_shape, x_stride, KERNEL, DILATION, INSIDE
        )
        value = widen(tl.load(corner + at, mask=inside, other=float("-inf")))  # [ROWS, COLUMNS]
        # From the first tap inside on whatever is greater, then any NaN: a later NaN replaces it,
        # nothing else is greater.
        take = (value > best) | (value != value)
        best = tl.where(take, value, best)
        best_tap = tl.where(take, tap, best_tap)
    tl.store(y_ptr + offset, narrow(best, y_ptr), mask=mask)
    if INDEX == "offset":
        tl.store(index_ptr + offset, tl.maximum(best_tap, 0).to(tl.uint8), mask=mask)
    if INDEX == "flat":
        d = start_d + best_tap // (KERNEL[1] * KERNEL[2]) * DILATION[0]
        h = start_h + best_tap // KERNEL[2] % KERNEL[1] * DILATION[1]
        w = start_w + best_tap % KERNEL[2] * DILATION[2]
        position = (d.to(tl.int64) * x_shape[3] + h) * x_shape[4] + w
        tl.store(index_ptr + offset, tl.where(best_tap < 0, -1, position), mask=mask)


def max_pool_forward(call: MaxPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the index of each maximum: its tap ("offset", uint8), its position in the plane
    ("flat", int64) or ("none") an empty tensor. A window without any tap inside has the maximum
    -inf, the offset 0 and the position -1."""
    x, kernel_size, stride, padding, dilation, _, index = call
    if index == "offset" and math.prod(kernel_size) > 256:
        raise ValueError(
            f"index='offset' counts at most 256 taps, got kernel_size={list(kernel_size)}: ask "
            "for 'flat'"
        )
    y, indices = call.results()
    if y.numel() == 0:
        return y, indices
    tiling = runtime.tile(y)
    runtime.launch(
        max_pool_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        indices,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.shape(y.shape),
        **tiling,
        **runtime.window(kernel_size, stride, padding, dilation),
        INDEX=index,
        INSIDE=windows_inside(x, y.shape[2:], kernel_size, stride, padding, dilation),
        UNROLL=runtime.unroll(math.prod(kernel_size)),
        WIDE=runtime.wide(x, y),
    )
    return y, indices


@triton.jit
def max_pool_backward_kernel(
    grad_y_ptr,  # (N, C, OD, OH, OW), any strides
    index_ptr,  # like grad_y, any strides: uint8 or int64
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    y_shape,
    grad_y_stride,
    index_stride,
    x_shape,
    x_stride,
    cells,  # N, C and how many cells each axis has, stacks of them the second
    rows,
    columns,
    TOGETHER: tl.constexpr,  # the strides of grad_y are those of index
    CELL: tl.constexpr,
    STACK: tl.constexpr,  # cells of a lane, one under the other
    CANDIDATES: tl.constexpr,  # windows that may cover one of those
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(cells, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    d, last_d, reach_d = cell_at(d, CELL[0], STRIDE[0], PADDING[0])
    h, last_h, reach_h = cell_at(h * STACK, CELL[1], STRIDE[1], PADDING[1])
    last_h += STACK - 1
    SPAN: tl.constexpr = (CELL[0], STACK * CELL[1], CELL[2])
    w, last_w, reach_w = cell_at(w, CELL[2], STRIDE[2], PADDING[2])
    grad_y_last = grad_y_ptr + place(n, c, last_d, last_h, last_w, 0, grad_y_stride, False)
    index_step = grad_y_stride if TOGETHER else index_stride
    index_last = index_ptr + place(n, c, last_d, last_h, last_w, 0, index_step, False)
    totals = sums_of(SPAN[0] * SPAN[1] * SPAN[2], ROWS, COLUMNS, grad_y_ptr)
    for which in tl.range(
        0, CANDIDATES[0] * CANDIDATES[1] * CANDIDATES[2], loop_unroll_factor=UNROLL
    ):
        back_d, back_h, back_w, there = window_at(
            which, last_d, last_h, last_w, mask, y_shape, CANDIDATES
        )
        chosen = tl.load(
            index_last - apart(back_d, back_h, back_w, index_step), mask=there, other=0
        )
        grad_y = tl.load(
            grad_y_last - apart(back_d, back_h, back_w, grad_y_stride), mask=there, other=0.0
        )
        chosen = chosen.to(tl.int32) if index_ptr.dtype.element_ty == tl.uint8 else chosen
        grad_y = widen(grad_y)  # [ROWS, COLUMNS]
        own = ()
        for i in tl.static_range(SPAN[0] * SPAN[1] * SPAN[2]):
            own_d, own_h, own_w = i // (SPAN[1] * SPAN[2]), i // SPAN[2] % SPAN[1], i % SPAN[2]
            td, on_d = tap_over(reach_d + own_d + back_d * STRIDE[0], KERNEL[0], DILATION[0])
            behind = reach_h + own_h + (back_h - (STACK - 1)) * STRIDE[1]
            th, on_h = tap_over(behind, KERNEL[1], DILATION[1])
            if STACK > 1:
                on_h = on_h & (behind >= 0)
            tw, on_w = tap_over(reach_w + own_w + back_w * STRIDE[2], KERNEL[2], DILATION[2])
            if index_ptr.dtype.element_ty == tl.uint8:
                tap = (td * KERNEL[1] + th) * KERNEL[2] + tw
            else:
                tap = ((d + own_d).to(tl.int64) * x_shape[3] + h + own_h) * x_shape[4] + w + own_w
            mine = (chosen == tap) & (on_d & on_h & on_w)
            own = own + (totals[i] + tl.where(mine, grad_y, 0.0),)
        totals = own
    first = grad_x_ptr + place(n, c, d, h, w, 0, x_stride, False)
    for i in tl.static_range(SPAN[0] * SPAN[1] * SPAN[2]):
        at, there = element_at(i, d, h, w, mask, x_shape, x_stride, SPAN)
        tl.store(first + at, narrow(totals[i], grad_x_ptr), mask=there)


def max_pool_backward(call: MaxPoolBackward) -> torch.Tensor:
    """grad_x, in the layout of ``index``, which is what :func:`max_pool_forward` returned, offsets
    or flat positions."""
    grad_y, index, _, kernel_size, stride, padding, dilation = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    count, cell = cells(grad_x.shape[2:], kernel_size, stride, padding, dilation)
    stack = 1
    if not runtime.channels_last(grad_x) and cell["CELL"] == runtime.spread(stride, 1):
        # Of planes, whose windows are loaded one by one: a window covers several cells.
        stack = max(1, LARGEST_CELL // math.prod(stride)) if grad_x.ndim > 3 else 1
    if stack > 1:
        count[-2] = triton.cdiv(count[-2], stack)
        depth, high, wide = cell["CANDIDATES"]
        cell["CANDIDATES"] = depth, high + stack - 1, wide
        cell["UNROLL"] = runtime.unroll(depth * (high + stack - 1) * wide)
    tiling = cell_tile(grad_x, count, (stack, *stride))
    runtime.launch(
        max_pool_backward_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        index,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.stride(index),
        runtime.shape(grad_x.shape),
        runtime.stride(grad_x),
        runtime.shape((*grad_x.shape[:2], *count)),
        **tiling,
        **runtime.window(kernel_size, stride, padding, dilation),
        **cell,
        STACK=stack,
        TOGETHER=grad_y.stride() == index.stride(),
        WIDE=runtime.wide(grad_y, index, grad_x),
    )
    return grad_x


@triton.jit
def avg_pool_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, OD, OH, OW), dense, written
    x_shape,
    x_stride,
    y_shape,
    rows,
    columns,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
    DIVISOR: tl.constexpr,
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
    start_d, start_h = od * STRIDE[0] - PADDING[0], oh * STRIDE[1] - PADDING[1]
    start_w = ow * STRIDE[2] - PADDING[2]
    corner = x_ptr + place(n, c, start_d, start_h, start_w, 0, x_stride, False)
    total = filled([ROWS, COLUMNS], 0.0, x_ptr)
    for tap in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
        at, inside = tap_of(
            tap, start_d, start_h, start_w, mask, x_shape, x_stride, KERNEL, DILATION, INSIDE
        )
        total += widen(tl.load(corner + at, mask=inside, other=0.0))
    y = average(
        total,
        od,
        oh,
        ow,
        x_shape,
        KERNEL,
        STRIDE,
        PADDING,
        COUNT_INCLUDE_PAD,
        DIVISOR,
        INSIDE,
        y_ptr,
    )  # [ROWS, COLUMNS]
    tl.store(y_ptr + offset, narrow(y, y_ptr), mask=mask)


def avg_pool_forward(call: AvgPoolForward) -> torch.Tensor:
    """y. ``divisor`` 0 means none: the count of taps that count."""
    x, kernel_size, stride, padding, _, count_include_pad, divisor = call
    y = call.results()
    if y.numel() == 0:
        return y
    tiling = runtime.tile(y)
    runtime.launch(
        avg_pool_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.shape(y.shape),
        **tiling,
        **runtime.window(kernel_size, stride, padding),
        COUNT_INCLUDE_PAD=bool(count_include_pad),
        DIVISOR=int(divisor),
        INSIDE=windows_inside(x, y.shape[2:], kernel_size, stride, padding),
        UNROLL=runtime.unroll(math.prod(kernel_size)),
        WIDE=runtime.wide(x, y),
    )
    return y


@triton.jit
def avg_pool_backward_kernel(
    grad_y_ptr,  # (N, C, OD, OH, OW), any strides
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    y_shape,
    grad_y_stride,
    x_shape,
    x_stride,
    cells,  # N, C and how many cells each axis has
    rows,
    columns,
    CELL: tl.constexpr,
    CANDIDATES: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
    DIVISOR: tl.constexpr,
    INSIDE: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(cells, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    d, last_d, reach_d = cell_at(d, CELL[0], STRIDE[0], PADDING[0])
    h, last_h, reach_h = cell_at(h, CELL[1], STRIDE[1], PADDING[1])
    w, last_w, reach_w = cell_at(w, CELL[2], STRIDE[2], PADDING[2])
    last = grad_y_ptr + place(n, c, last_d, last_h, last_w, 0, grad_y_stride, False)
    totals = sums_of(CELL[0] * CELL[1] * CELL[2], ROWS, COLUMNS, grad_y_ptr)
    for which in tl.range(
        0, CANDIDATES[0] * CANDIDATES[1] * CANDIDATES[2], loop_unroll_factor=UNROLL
    ):
        back_d, back_h, back_w, there = window_at(
            which, last_d, last_h, last_w, mask, y_shape, CANDIDATES
        )
        grad_y = tl.load(last - apart(back_d, back_h, back_w, grad_y_stride), there, other=0.0)
        share = average(
            widen(grad_y),
            last_d - back_d,
            last_h - back_h,
            last_w - back_w,
            x_shape,
            KERNEL,
            STRIDE,
            PADDING,
            COUNT_INCLUDE_PAD,
            DIVISOR,
            INSIDE,
            grad_x_ptr,
        )  # [ROWS, COLUMNS]
        totals = given(
            totals,
            share,
            reach_d + back_d * STRIDE[0],
            reach_h + back_h * STRIDE[1],
            reach_w + back_w * STRIDE[2],
            CELL,
            KERNEL,
        )
    first = grad_x_ptr + place(n, c, d, h, w, 0, x_stride, False)
    for i in tl.static_range(CELL[0] * CELL[1] * CELL[2]):
        at, there = element_at(i, d, h, w, mask, x_shape, x_stride, CELL)
        tl.store(first + at, narrow(totals[i], grad_x_ptr), mask=there)


def avg_pool_backward(call: AvgPoolBackward) -> torch.Tensor:
    """grad_x, channels last or not."""
    grad_y, grad_x = call.grad_y, call.results()
    if grad_x.numel() == 0:
        return grad_x
    window = call.kernel_size, call.stride, call.padding
    last, bins = runtime.channels_last(grad_x), [1] * (grad_x.ndim - 2)
    whole = list(call.kernel_size) == list(grad_x.shape[2:]) and not any(call.padding)
    whole = whole and not call.divisor and list(grad_y.shape[2:]) == bins
    if whole and pool_adaptive_dense.serves(grad_x, last, bins, False, grad_y):
        # The one window is a bin.
        pool_adaptive_dense_backward.backward(grad_y, None, grad_x, bins, last, False)
        return grad_x
    count, cell = cells(grad_x.shape[2:], *window)
    tiling = cell_tile(grad_x, count, cell["CELL"])
    runtime.launch(
        avg_pool_backward_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(grad_x.shape),
        runtime.stride(grad_x),
        runtime.shape((*grad_x.shape[:2], *count)),
        **tiling,
        **runtime.window(call.kernel_size, call.stride, call.padding),
        COUNT_INCLUDE_PAD=bool(call.count_include_pad),
        DIVISOR=int(call.divisor),
        **cell,
        INSIDE=windows_inside(grad_x, grad_y.shape[2:], *window),
        WIDE=runtime.wide(grad_y, grad_x),
    )
    return grad_x
