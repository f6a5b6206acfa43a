"""Weight gradient of depthwise convolution (definition: csrc/conv.h; conv_depthwise.py has forward
and the gradient of the input).

    grad_w[f, t] = sum over n, o of grad_y[n, f, o] * x[n, f // multiplier, at(o, t)]

A program has the taps of some channels, TAPS of them, and a run of pixels. Where pixels are
neighbours in memory a lane takes strips of STRIP rows, one under the other, of which it loads and
widens once what several taps read. Lanes keep their products apart until the end of the run, of
which the program then writes one part a channel and tap; split.py adds those up in order.

It cannot avoid reading grad_y and x once.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from . import runtime
from .channel_sums import added, runs_of, share_of, tile_at
from .conv_depthwise import UNROLLED_TAPS
from .elements import as_offset, inline, narrow, place, widen
from .split import parts_of, sum_parts
from .windows import apart, sums_of, tap_of

# Taps whose sums a program keeps where it cannot have all. Of other numbers ptxas spills one
# register.
TAPS_AT_ONCE = 7


@inline
def products_of(
    totals,
    grad_y_ptr,
    x_ptr,
    oh,
    start_d,
    start_h,
    start_w,
    mask,
    shape,
    grad_y_stride,
    x_shape,
    x_stride,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    STRIP: tl.constexpr,
):
    """The totals of the taps with the products of a strip of grad_y and what it reads more."""
    HEIGHT: tl.constexpr = (STRIP - 1) * STRIDE[1] + (KERNEL[1] - 1) * DILATION[1] + 1
    SPAN: tl.constexpr = (KERNEL[0], HEIGHT, KERNEL[2])
    STEP: tl.constexpr = (DILATION[0], 1, DILATION[2])
    grad_y = ()
    for own in tl.static_range(STRIP):
        there = mask & (oh + own < shape[3])
        grad_y += (
            widen(tl.load(grad_y_ptr + apart(0, own, 0, grad_y_stride), mask=there, other=0.0)),
        )
    x = ()
    for i in tl.static_range(KERNEL[0] * HEIGHT * KERNEL[2]):
        at, inside = tap_of(
            i, start_d, start_h, start_w, mask, x_shape, x_stride, SPAN, STEP, False
        )
        x += (widen(tl.load(x_ptr + at, mask=inside, other=0.0)),)
    more = ()
    for tap in tl.static_range(KERNEL[0] * KERNEL[1] * KERNEL[2]):
        total = totals[tap]
        for own in tl.static_range(STRIP):
            # Beyond the last row there is no product, were what x has there infinite.
            product = (
                grad_y[own]
                * x[
                    (
                        tap // (KERNEL[1] * KERNEL[2]) * HEIGHT
                        + own * STRIDE[1]
                        + tap // KERNEL[2] % KERNEL[1] * DILATION[1]
                    )
                    * KERNEL[2]
                    + tap % KERNEL[2]
                ]
            )
            total = tl.where(oh + own < shape[3], total + product, total)
        more += (total,)
    return more


@triton.jit
def depthwise_grad_weight_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    part_ptr,  # (runs, F, taps), dense, written
    shape,
    grad_y_stride,
    x_shape,
    x_stride,
    strips,  # shape with so many strips of rows
    multiplier,  # F / C
    pixels,  # of strips: a pixel is one
    columns,
    run_pixels,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    TAPS: tl.constexpr,  # of a program
    GROUPS: tl.constexpr,  # of so many taps
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    ALL_TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    program = tl.program_id(0)
    first_tap = as_offset(program % GROUPS * TAPS, WIDE)
    f0, f, run, first, begin, end = share_of(
        program // GROUPS,
        shape[1],
        pixels,
        columns,
        run_pixels,
        ROWS,
        COLUMNS,
        ROWS_ARE_PIXELS,
        WIDE,
    )
    totals = sums_of(TAPS, ROWS, COLUMNS, x_ptr)
    for tile in range(begin, end):
        n, od, oh, ow, offset, mask, _, _, _ = tile_at(
            tile,
            f0,
            f,
            first,
            strips,
            pixels,
            columns,
            run_pixels,
            ROWS,
            COLUMNS,
            ROWS_ARE_PIXELS,
            WIDE,
        )
        oh *= STRIP
        start_d, start_h = od * STRIDE[0] - PADDING[0], oh * STRIDE[1] - PADDING[1]
        start_w = ow * STRIDE[2] - PADDING[2]
        at = place(n, f // multiplier, start_d, start_h, start_w, 0, x_stride, False)
        if STRIP > 1:
            corner = x_ptr + at
            first_y = grad_y_ptr + place(n, f, od, oh, ow, 0, grad_y_stride, False)
            totals = products_of(
                totals,
                first_y,
                corner,
                oh,
                start_d,
                start_h,
                start_w,
                mask,
                shape,
                grad_y_stride,
                x_shape,
                x_stride,
                KERNEL,
                STRIDE,
                DILATION,
                STRIP,
            )
        else:
            at_y = place(n, f, od, oh, ow, offset, grad_y_stride, DENSE)
            grad_y = widen(tl.load(grad_y_ptr + at_y, mask=mask, other=0.0))
            more = ()
            for i in tl.static_range(TAPS):
                back, inside = tap_of(
                    first_tap + i,
                    start_d,
                    start_h,
                    start_w,
                    mask,
                    x_shape,
                    x_stride,
                    KERNEL,
                    DILATION,
                    False,
                )
                x = widen(tl.load(x_ptr + at + back, mask=inside, other=0.0))
                more = more + (totals[i] + grad_y * x,)
            totals = more
    for i in tl.static_range(TAPS):
        # As many as lanes, for the interpreter spreads no scalar condition. A tap beyond the last
        # read what is in the map, for nothing.
        tap = f * 0 + first_tap + i
        total = narrow(added(totals[i], ROWS_ARE_PIXELS), part_ptr)
        to = part_ptr + (run * shape[1] + f) * ALL_TAPS + tap
        tl.store(to, total, mask=(f < shape[1]) & (tap < ALL_TAPS))


def grad_weight(
    grad_y: torch.Tensor, x: torch.Tensor, grad_weight: torch.Tensor, window: dict[str, Any]
) -> torch.Tensor:
    """``grad_weight``, written. ``grad_y`` is not empty."""
    taps = math.prod(window["KERNEL"])
    together = taps if taps <= UNROLLED_TAPS else TAPS_AT_ONCE
    groups = triton.cdiv(taps, together)
    last = runtime.channels_last(grad_y)
    depth, height, width = runtime.spread(grad_y.shape[2:], 1)
    strip, elements = 1, 2048 // max(grad_y.element_size(), 2)
    if not last and groups == 1 and grad_y.ndim > 3:
        reach = (window["KERNEL"][1] - 1) * window["DILATION"][1] + 1
        strip, elements = runtime.strip_of(height, window["STRIDE"][1], reach), 128
    size = depth, triton.cdiv(height, strip), width
    parted = runs_of(grad_y, last, elements, groups, size)
    runs, programs = parted.pop("runs"), parted.pop("programs")
    parts = parts_of(grad_weight, runs)
    runtime.launch(
        depthwise_grad_weight_kernel,
        programs,
        x.device,
        grad_y,
        x,
        parts,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(x.shape),
        runtime.stride(x),
        (*grad_y.shape[:2], *size),
        grad_y.shape[1] // x.shape[1],
        **parted,
        **window,
        TAPS=together,
        GROUPS=groups,
        STRIP=strip,
        DENSE=runtime.dense(last, grad_y),
        WIDE=runtime.wide(grad_y, x, parts),
        maxnreg=runtime.ALL_REGISTERS,
    )
    return sum_parts(parts, grad_weight)
