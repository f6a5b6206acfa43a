"""Adaptive and pyramid pooling over D, H, W, and their gradients (definitions:
csrc/pool_adaptive.h).

    bin o of O along an axis of I elements: [floor(o * I / O), ceil((o + 1) * I / O))
    average  y[n, c, o] = sum of x[n, c, i] over bin o / elements of bin o
    maximum  y[n, c, o] = max of x[n, c, i] over bin o, and where it is

The gradients gather: an element lies in the bins [floor(i * O / I), ceil((i + 1) * O / I)) of an
axis, and adds up its share of each in scan order: no atomics, nothing to fill with zeros first,
the same bits every time.

Layouts: x and grad_y have any strides; a program covers ROWS x COLUMNS elements of y or of grad_x,
both dense, in the order of its memory (elements.walk). The gradient of a pyramid is the same
kernel: an adaptive pooling is a pyramid of one level. Least traffic: x read once and y (and index)
written once, and the other way round.

Dense maps of one or two axes have kernels of their own, several times as fast: forward
pool_adaptive_dense.py, the gradients pool_adaptive_dense_backward.py and, of averages,
pool_adaptive_planes.py. Those here serve every other map, pool_pyramid.py's too.

Why this form: bins differ in their lengths, so all lanes of a program take as many turns as the
longest bin has elements and those with shorter ones are masked. The counts of bins are constants of
the compiled kernel; the sizes of the map are not.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pydl.contract.pool_adaptive import (
    AdaptiveAvgPoolBackward,
    AdaptiveAvgPoolForward,
    AdaptiveMaxPoolBackward,
    AdaptiveMaxPoolForward,
    PyramidPoolBackward,
    split,
)

from . import pool_adaptive_dense, pool_adaptive_dense_backward, pool_adaptive_planes, runtime
from .bins import bin_end, bin_start, flat_position, levels_of, longest, reduce_bin, wide
from .elements import divide, divided, filled, narrow, walk, widen
from .pool_pyramid import pyramid_pool_forward as pyramid_pool_forward


@triton.jit
def adaptive_pool_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, OD, OH, OW), dense, written
    index_ptr,  # like y: uint8 (INDEX "offset") or int64 ("flat"), written; not touched for "none"
    x_shape,
    x_stride,
    y_shape,
    rows,
    columns,
    BINS: tl.constexpr,
    MAXIMUM: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, od, oh, ow, offset, mask = walk(
        y_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE
    )
    plane = x_ptr + n * x_stride[0] + c * x_stride[1]
    start = filled([ROWS, COLUMNS], 0.0, x_ptr)
    y, tap = reduce_bin(
        plane,
        od,
        oh,
        ow,
        mask,
        x_shape,
        x_stride,
        start,
        BINS[0],
        BINS[1],
        BINS[2],
        MAXIMUM,
    )
    tl.store(y_ptr + offset, narrow(y, y_ptr), mask=mask)
    if INDEX == "offset":
        tl.store(index_ptr + offset, tap.to(tl.uint8), mask=mask)
    if INDEX == "flat":
        position = flat_position(tap, od, oh, ow, x_shape, BINS[0], BINS[1], BINS[2])
        tl.store(index_ptr + offset, position, mask=mask)


def _forward(
    x: torch.Tensor,
    y: torch.Tensor,
    indices: torch.Tensor | None,
    output_size: Sequence[int],
    index_form: str,
) -> None:
    if y.numel() == 0:
        return
    last = runtime.channels_last(y)
    made = [y] if indices is None or indices.numel() == 0 else [y, indices]
    if pool_adaptive_dense.serves(x, last, output_size, False, *made):
        pool_adaptive_dense.forward(x, y, indices, output_size, index_form, last, False)
        return
    tiling = runtime.tile(y)
    runtime.launch(
        adaptive_pool_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        indices,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.shape(y.shape),
        **tiling,
        BINS=runtime.spread(output_size, 1),
        MAXIMUM=indices is not None,
        INDEX=index_form,
        WIDE=wide(x.shape[2:], output_size, x, y),
        maxnreg=runtime.ALL_REGISTERS,
    )


def adaptive_avg_pool_forward(call: AdaptiveAvgPoolForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    y = call.results()
    _forward(call.x, y, None, call.output_size, "none")
    return y


def adaptive_max_pool_forward(call: AdaptiveMaxPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the index of each maximum: its place in the bin ("offset", uint8), its position in the
    plane ("flat", int64) or ("none") an empty tensor."""
    y, indices = call.results()
    _forward(call.x, y, indices, call.output_size, call.index_form)
    return y, indices


@triton.jit
def adaptive_pool_backward_kernel(
    grad_y_ptr,  # (N, C, OD, OH, OW), or of a pyramid (N, C * bins); any strides
    index_ptr,  # like grad_y, uint8 or int64; not touched for averages
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    grad_y_stride,  # five a level, for n, c, od, oh, ow
    index_stride,
    grad_y_first,  # where each level begins
    index_first,
    x_shape,
    rows,
    columns,
    LEVELS: tl.constexpr,  # three counts of bins a level
    COUNT: tl.constexpr,
    MAXIMUM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(x_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
    for level in tl.static_range(COUNT):
        gradients = (
            grad_y_ptr
            + grad_y_first[level]
            + n * grad_y_stride[5 * level]
            + c * grad_y_stride[5 * level + 1]
        )
        first_d, _ = divided(d * LEVELS[3 * level], x_shape[2])
        first_h, _ = divided(h * LEVELS[3 * level + 1], x_shape[3])
        first_w, _ = divided(w * LEVELS[3 * level + 2], x_shape[4])
        for which_d in range(longest(LEVELS[3 * level], x_shape[2])):
            for which_h in range(longest(LEVELS[3 * level + 1], x_shape[3])):
                for which_w in range(longest(LEVELS[3 * level + 2], x_shape[4])):
                    od, oh, ow = first_d + which_d, first_h + which_h, first_w + which_w
                    d0 = bin_start(od, x_shape[2], LEVELS[3 * level])
                    h0 = bin_start(oh, x_shape[3], LEVELS[3 * level + 1])
                    w0 = bin_start(ow, x_shape[4], LEVELS[3 * level + 2])
                    # The first bin that can hold the element is a bin, and holds it; those after
                    # it may lie behind it, or not be.
                    held = mask & (d0 <= d) & (h0 <= h) & (w0 <= w)
                    held = held & (od < LEVELS[3 * level]) & (oh < LEVELS[3 * level + 1])
                    held = held & (ow < LEVELS[3 * level + 2])
                    if MAXIMUM:
                        chosen = tl.load(
                            index_ptr
                            + index_first[level]
                            + n * index_stride[5 * level]
                            + c * index_stride[5 * level + 1]
                            + od * index_stride[5 * level + 2]
                            + oh * index_stride[5 * level + 3]
                            + ow * index_stride[5 * level + 4],
                            mask=held,
                            other=0,
                        )
                        if index_ptr.dtype.element_ty == tl.uint8:
                            tap = (d - d0) * longest(x_shape[3], LEVELS[3 * level + 1]) + h - h0
                            tap = tap * longest(x_shape[4], LEVELS[3 * level + 2]) + w - w0
                            mine = chosen.to(tl.int32) == tap
                        else:
                            place = (d.to(tl.int64) * x_shape[3] + h) * x_shape[4] + w
                            mine = chosen == place
                    grad_y = widen(
                        tl.load(
                            gradients
                            + od * grad_y_stride[5 * level + 2]
                            + oh * grad_y_stride[5 * level + 3]
                            + ow * grad_y_stride[5 * level + 4],
                            mask=held,
                            other=0.0,
                        )
                    )
                    if MAXIMUM:
                        grad_y = tl.where(mine, grad_y, 0.0)
                    else:
                        taps = bin_end(od, x_shape[2], LEVELS[3 * level]) - d0
                        taps *= bin_end(oh, x_shape[3], LEVELS[3 * level + 1]) - h0
                        taps *= bin_end(ow, x_shape[4], LEVELS[3 * level + 2]) - w0
                        grad_y = divide(grad_y, tl.maximum(taps, 1))
                    total += grad_y  # [ROWS, COLUMNS]
    tl.store(grad_x_ptr + offset, narrow(total, grad_x_ptr), mask=mask)


def _places(pooled: torch.Tensor, channels: int, bins: Sequence[int], pyramid: bool) -> tuple:
    """Where the levels lie in ``pooled``: five strides a level, and where each begins."""
    if not pyramid:
        return runtime.stride(pooled), (0,)
    strides, begins, first = [], [], 0
    of_image, step = pooled.stride()
    for depth, height, width in split(bins, 3):
        count = depth * height * width
        strides += [of_image, step * count, step * height * width, step * width, step]
        begins.append(step * channels * first)
        first += count
    return tuple(strides), tuple(begins)


def _backward(
    grad_y: torch.Tensor,
    index: torch.Tensor,
    grad_x: torch.Tensor,
    levels: Sequence[int],
    maximum: bool,
    pyramid: bool,
) -> torch.Tensor:
    if grad_x.numel() == 0:
        return grad_x
    last = runtime.channels_last(grad_x)
    if pool_adaptive_dense.serves(
        grad_x, last, levels, pyramid, grad_y, *([index] if maximum else [])
    ):
        if not maximum and pool_adaptive_planes.serves(grad_x, last, levels):
            pool_adaptive_planes.backward(grad_y, grad_x, levels)
        else:
            chosen = index if maximum else None
            pool_adaptive_dense_backward.backward(grad_y, chosen, grad_x, levels, last, pyramid)
        return grad_x
    size, channels = grad_x.shape[2:], grad_x.shape[1]
    bins, _ = levels_of(size, levels)
    grad_y_stride, grad_y_first = _places(grad_y, channels, bins, pyramid)
    index_stride, index_first = grad_y_stride, grad_y_first
    if maximum:
        index_stride, index_first = _places(index, channels, bins, pyramid)
    tiling = runtime.tile(grad_x)
    runtime.launch(
        adaptive_pool_backward_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        index if maximum else grad_y,
        grad_x,
        grad_y_stride,
        index_stride,
        grad_y_first,
        index_first,
        runtime.shape(grad_x.shape),
        **tiling,
        LEVELS=tuple(bins),
        COUNT=len(bins) // 3,
        MAXIMUM=maximum,
        WIDE=wide(size, levels, grad_y, grad_x),
        maxnreg=runtime.ALL_REGISTERS,
    )
    return grad_x


def adaptive_avg_pool_backward(call: AdaptiveAvgPoolBackward) -> torch.Tensor:
    """grad_x, channels last or not."""
    grad_y, grad_x = call.grad_y, call.results()
    return _backward(grad_y, grad_y, grad_x, grad_y.shape[2:], False, False)


def adaptive_max_pool_backward(call: AdaptiveMaxPoolBackward) -> torch.Tensor:
    """grad_x, in the layout of ``index``, which is what :func:`adaptive_max_pool_forward`
    returned."""
    grad_y, indices, _ = call
    return _backward(grad_y, indices, call.results(), grad_y.shape[2:], True, False)


def pyramid_pool_backward(call: PyramidPoolBackward) -> torch.Tensor:
    """grad_x (N, *input_size), channels last or not."""
    grad_y, indices, _, levels, kind, _ = call
    return _backward(grad_y, indices, call.results(), levels, kind == "max", True)
