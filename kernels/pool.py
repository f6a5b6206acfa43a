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
from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pydl.contract.pool import AvgPoolBackward, AvgPoolForward, MaxPoolBackward, MaxPoolForward

from . import runtime
from .elements import divide, filled, inline, narrow, read_at, walk, widen, window_over


def candidates(
    kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1, 1)
) -> tuple[int, int, int]:
    """How many windows of each axis may cover one element: one reaches (kernel - 1) * dilation + 1
    elements."""
    reach = [(taps - 1) * step + 1 for taps, step in zip(kernel_size, dilation, strict=False)]
    return runtime.spread(
        [-(-length // step) for length, step in zip(reach, stride, strict=True)], 1
    )


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
    best = filled([ROWS, COLUMNS], float("-inf"), x_ptr)
    best_tap = tl.full([ROWS, COLUMNS], -1, tl.int32)
    for tap in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
        d, in_d = read_at(
            od, tap // (KERNEL[1] * KERNEL[2]), x_shape[2], STRIDE[0], PADDING[0], DILATION[0]
        )
        h, in_h = read_at(
            oh, tap // KERNEL[2] % KERNEL[1], x_shape[3], STRIDE[1], PADDING[1], DILATION[1]
        )
        w, in_w = read_at(ow, tap % KERNEL[2], x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        inside = mask & in_d & in_h & in_w
        value = tl.load(
            plane + d * x_stride[2] + h * x_stride[3] + w * x_stride[4],
            mask=inside,
            other=float("-inf"),
        )
        value = widen(value)  # [ROWS, COLUMNS]
        # The first tap inside, then whatever is greater, then any NaN: a later NaN replaces it,
        # nothing else is greater.
        take = inside & ((best_tap < 0) | (value > best) | (value != value))
        best = tl.where(take, value, best)
        best_tap = tl.where(take, tap, best_tap)
    tl.store(y_ptr + offset, narrow(best, y_ptr), mask=mask)
    if INDEX == "offset":
        tl.store(index_ptr + offset, tl.maximum(best_tap, 0).to(tl.uint8), mask=mask)
    if INDEX == "flat":
        d, _ = read_at(
            od, best_tap // (KERNEL[1] * KERNEL[2]), x_shape[2], STRIDE[0], PADDING[0], DILATION[0]
        )
        h, _ = read_at(
            oh, best_tap // KERNEL[2] % KERNEL[1], x_shape[3], STRIDE[1], PADDING[1], DILATION[1]
        )
        w, _ = read_at(ow, best_tap % KERNEL[2], x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
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
    rows,
    columns,
    CANDIDATES: tl.constexpr,
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
    n, c, d, h, w, offset, mask = walk(x_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    grad_y_plane = grad_y_ptr + n * grad_y_stride[0] + c * grad_y_stride[1]
    index_plane = index_ptr + n * index_stride[0] + c * index_stride[1]
    total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
    for which in tl.range(
        0, CANDIDATES[0] * CANDIDATES[1] * CANDIDATES[2], loop_unroll_factor=UNROLL
    ):
        which_d = which // (CANDIDATES[1] * CANDIDATES[2])
        which_h = which // CANDIDATES[2] % CANDIDATES[1]
        which_w = which % CANDIDATES[2]
        od, td, on_d = window_over(
            d, which_d, y_shape[2], CANDIDATES[0], KERNEL[0], STRIDE[0], PADDING[0], DILATION[0]
        )
        oh, th, on_h = window_over(
            h, which_h, y_shape[3], CANDIDATES[1], KERNEL[1], STRIDE[1], PADDING[1], DILATION[1]
        )
        ow, tw, on_w = window_over(
            w, which_w, y_shape[4], CANDIDATES[2], KERNEL[2], STRIDE[2], PADDING[2], DILATION[2]
        )
        covered = mask & on_d & on_h & on_w
        chosen = tl.load(
            index_plane + od * index_stride[2] + oh * index_stride[3] + ow * index_stride[4],
            mask=covered,
            other=0,
        )
        if index_ptr.dtype.element_ty == tl.uint8:
            mine = chosen.to(tl.int32) == (td * KERNEL[1] + th) * KERNEL[2] + tw
        else:
            mine = chosen == (d.to(tl.int64) * x_shape[3] + h) * x_shape[4] + w
        grad_y = tl.load(
            grad_y_plane + od * grad_y_stride[2] + oh * grad_y_stride[3] + ow * grad_y_stride[4],
            mask=covered & mine,
            other=0.0,
        )
        total += widen(grad_y)  # [ROWS, COLUMNS]
    tl.store(grad_x_ptr + offset, narrow(total, grad_x_ptr), mask=mask)


def max_pool_backward(call: MaxPoolBackward) -> torch.Tensor:
    """grad_x, in the layout of ``index``, which is what :func:`max_pool_forward` returned, offsets
    or flat positions."""
    grad_y, index, _, kernel_size, stride, padding, dilation = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    tiling = runtime.tile(grad_x)
    over = candidates(kernel_size, stride, dilation)
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
        **tiling,
        **runtime.window(kernel_size, stride, padding, dilation),
        CANDIDATES=over,
        UNROLL=runtime.unroll(math.prod(over)),
        WIDE=runtime.wide(grad_y, index, grad_x),
    )
    return grad_x


@inline
def averaged(
    position,
    size,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
):
    """How many taps of the window ``position`` of one axis count in its average."""
    start = position * STRIDE - PADDING
    if COUNT_INCLUDE_PAD:
        return tl.minimum(start + KERNEL, size + PADDING) - start
    else:
        return tl.minimum(start + KERNEL, size) - tl.maximum(start, 0)


@inline
def average(
    total,
    od,
    oh,
    ow,
    x_shape,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
    DIVISOR: tl.constexpr,
):
    """``total`` over the divisor of the window (od, oh, ow); the sum 0 of a window with no tap that
    counts stays 0."""
    if DIVISOR != 0:
        return divide(total, tl.full([1, 1], DIVISOR, tl.int32))
    else:
        taps = (
            averaged(od, x_shape[2], KERNEL[0], STRIDE[0], PADDING[0], COUNT_INCLUDE_PAD)
            * averaged(oh, x_shape[3], KERNEL[1], STRIDE[1], PADDING[1], COUNT_INCLUDE_PAD)
            * averaged(ow, x_shape[4], KERNEL[2], STRIDE[2], PADDING[2], COUNT_INCLUDE_PAD)
        )
        return divide(total, tl.maximum(taps, 1))


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
        d, in_d = read_at(
            od, tap // (KERNEL[1] * KERNEL[2]), x_shape[2], STRIDE[0], PADDING[0], DILATION[0]
        )
        h, in_h = read_at(
            oh, tap // KERNEL[2] % KERNEL[1], x_shape[3], STRIDE[1], PADDING[1], DILATION[1]
        )
        w, in_w = read_at(ow, tap % KERNEL[2], x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        inside = mask & in_d & in_h & in_w
        total += widen(
            tl.load(
                plane + d * x_stride[2] + h * x_stride[3] + w * x_stride[4], mask=inside, other=0.0
            )
        )
    y = average(
        total, od, oh, ow, x_shape, KERNEL, STRIDE, PADDING, COUNT_INCLUDE_PAD, DIVISOR
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
    rows,
    columns,
    CANDIDATES: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    COUNT_INCLUDE_PAD: tl.constexpr,
    DIVISOR: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(x_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    plane = grad_y_ptr + n * grad_y_stride[0] + c * grad_y_stride[1]
    total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
    for which in tl.range(
        0, CANDIDATES[0] * CANDIDATES[1] * CANDIDATES[2], loop_unroll_factor=UNROLL
    ):
        which_d = which // (CANDIDATES[1] * CANDIDATES[2])
        which_h = which // CANDIDATES[2] % CANDIDATES[1]
        which_w = which % CANDIDATES[2]
        od, _, on_d = window_over(
            d, which_d, y_shape[2], CANDIDATES[0], KERNEL[0], STRIDE[0], PADDING[0], DILATION[0]
        )
        oh, _, on_h = window_over(
            h, which_h, y_shape[3], CANDIDATES[1], KERNEL[1], STRIDE[1], PADDING[1], DILATION[1]
        )
        ow, _, on_w = window_over(
            w, which_w, y_shape[4], CANDIDATES[2], KERNEL[2], STRIDE[2], PADDING[2], DILATION[2]
        )
        covered = mask & on_d & on_h & on_w
        grad_y = tl.load(
            plane + od * grad_y_stride[2] + oh * grad_y_stride[3] + ow * grad_y_stride[4],
            mask=covered,
            other=0.0,
        )
        total += average(
            widen(grad_y), od, oh, ow, x_shape, KERNEL, STRIDE, PADDING, COUNT_INCLUDE_PAD, DIVISOR
        )
    tl.store(grad_x_ptr + offset, narrow(total, grad_x_ptr), mask=mask)


def avg_pool_backward(call: AvgPoolBackward) -> torch.Tensor:
    """grad_x, channels last or not."""
    grad_y, grad_x = call.grad_y, call.results()
    if grad_x.numel() == 0:
        return grad_x
    tiling = runtime.tile(grad_x)
    over = candidates(call.kernel_size, call.stride)
    runtime.launch(
        avg_pool_backward_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(grad_x.shape),
        **tiling,
        **runtime.window(call.kernel_size, call.stride, call.padding),
        COUNT_INCLUDE_PAD=bool(call.count_include_pad),
        DIVISOR=int(call.divisor),
        CANDIDATES=over,
        UNROLL=runtime.unroll(math.prod(over)),
        WIDE=runtime.wide(grad_y, grad_x),
    )
    return grad_x
