"""Depthwise convolution, one channel a group, and the gradient of its input (definition:
csrc/conv.h), without a product of matrices; conv_depthwise_weight.py has that of the weight.

    forward      y[n, f, o]      = activation(bias[f] + residual[n, f, o] + sum over t of
                                   x[n, f // multiplier, o * stride - padding + t * dilation]
                                   * weight[f, t])
    grad input   grad_x[n, c, i] = sum over the multiplier's f of c, and the t and o with
                                   o * stride - padding + t * dilation = i, of
                                   grad_y[n, f, o] * weight[f, t]

Forward and grad input cover ROWS x COLUMNS elements of what they write a program, pixels by
channels in the order of memory (elements.walk), with the taps unrolled (runtime.unroll). An element
of grad_x visits only the taps that read it, every stride / gcd(stride, dilation)-th of each axis
from one that its residue says (conv_tiles.residue_class): 4 of 3 x 3 with stride 2, none beyond the
edges of a class but what pads the uneven ones. Of few taps a lane of forward computes a strip of
rows, one under the other, and loads what several of them read once.

It cannot avoid reading x and writing y once, and 2 * taps operations per element of y: 18
operations for 4 bytes of 3 x 3 in float16, far below what the units do while the memory moves them.
The taps of neighbouring lanes overlap and come out of the L1 cache, as do the weights.

Why this form: a product would fill a sixteenth of its least tile with one channel. Sums are in
float32 (float64 for float64) for every setting of TF32.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from . import conv_tiles, runtime
from .bias_act import activate
from .conv_tiles import residue_class
from .elements import as_offset, filled, inline, narrow, place, walk, widen
from .windows import apart, sums_of, tap_of

# Grad input unrolls no more taps than this entirely, and none with 64-bit offsets: with a stride
# each lane has taps of its own, whose offsets take registers.
UNROLLED_TAPS = 9
# Rows of y that a lane computes, one under the other, of windows of no more taps than those, where
# channels are neighbours (else runtime.strip_of): an element of x that several of the rows read is
# loaded and widened once.
STRIP = 4


@inline
def weight_at(tap, stride, KERNEL: tl.constexpr, TURNED: tl.constexpr):
    """How far into its filter a tap lies."""
    d, h, w = tap // (KERNEL[1] * KERNEL[2]), tap // KERNEL[2] % KERNEL[1], tap % KERNEL[2]
    if TURNED:
        d, h, w = KERNEL[0] - 1 - d, KERNEL[1] - 1 - h, KERNEL[2] - 1 - w
    return apart(d, h, w, stride)


@inline
def grown(
    total,
    x,
    inside,
    weights,
    ELEMENT: tl.constexpr,
    OWN: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    SPAN: tl.constexpr,
    TURNED: tl.constexpr,
):
    """The sum of the strip's row OWN with the product of the ELEMENT-th that the strip reads,
    where the row reads that."""
    TAPS: tl.constexpr = KERNEL[1]
    for h in tl.static_range(TAPS):
        if OWN * STRIDE[1] + h * DILATION[1] == ELEMENT // SPAN[2] % SPAN[1]:
            product = (
                x
                * weights[
                    (ELEMENT // (SPAN[1] * SPAN[2]) * KERNEL[1] + h) * KERNEL[2] + ELEMENT % SPAN[2]
                ]
            )
            total = tl.where(inside, total + product, total) if TURNED else total + product
    return total


@triton.jit
def depthwise_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    weight_ptr,  # (F, 1, KD, KH, KW), any strides
    bias_ptr,  # (F,) or None
    residual_ptr,  # like y, any strides, or None
    y_ptr,  # (N, F, OD, OH, OW), dense, written
    x_shape,
    x_stride,
    weight_stride,
    bias_stride,
    residual_stride,
    y_shape,
    y_stride,
    strips,  # y_shape with so many strips of rows
    multiplier,  # F / C
    rows,
    columns,
    slope: tl.float64,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TURNED: tl.constexpr,  # a gradient: of turned filters, and what is not there is no factor
    STRIP: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, f, od, oh, ow, _, mask = walk(strips, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    oh *= STRIP
    in_f = f < y_shape[1]
    start_d, start_h = od * STRIDE[0] - PADDING[0], oh * STRIDE[1] - PADDING[1]
    start_w = ow * STRIDE[2] - PADDING[2]
    corner = x_ptr + place(n, f // multiplier, start_d, start_h, start_w, 0, x_stride, False)
    filter = weight_ptr + f * weight_stride[0]
    totals = sums_of(STRIP, ROWS, COLUMNS, x_ptr)
    if STRIP == 1:
        (total,) = totals
        for tap in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
            at, inside = tap_of(
                tap, start_d, start_h, start_w, mask, x_shape, x_stride, KERNEL, DILATION, False
            )
            x = widen(tl.load(corner + at, mask=inside, other=0.0))  # [ROWS, COLUMNS]
            at = weight_at(tap, weight_stride, KERNEL, TURNED)
            weight = widen(tl.load(filter + at, mask=in_f, other=0.0))
            more = total + x * weight
            total = tl.where(inside, more, total) if TURNED else more
        totals = (total,)
    else:
        weights = ()
        for tap in tl.static_range(KERNEL[0] * KERNEL[1] * KERNEL[2]):
            at = weight_at(tap, weight_stride, KERNEL, TURNED)
            weights = weights + (widen(tl.load(filter + at, mask=in_f, other=0.0)),)
        HEIGHT: tl.constexpr = (STRIP - 1) * STRIDE[1] + (KERNEL[1] - 1) * DILATION[1] + 1
        SPAN: tl.constexpr = (KERNEL[0], HEIGHT, KERNEL[2])
        STEP: tl.constexpr = (DILATION[0], 1, DILATION[2])
        for i in tl.static_range(KERNEL[0] * HEIGHT * KERNEL[2]):
            # The i-th element that the strip reads, of which no row of outputs may want any.
            at, inside = tap_of(
                i, start_d, start_h, start_w, mask, x_shape, x_stride, SPAN, STEP, False
            )
            x = widen(tl.load(corner + at, mask=inside, other=0.0))
            more = ()
            for own in tl.static_range(STRIP):
                total = grown(
                    totals[own], x, inside, weights, i, own, KERNEL, STRIDE, DILATION, SPAN, TURNED
                )
                more = more + (total,)
            totals = more
    first = y_ptr + place(n, f, od, oh, ow, 0, y_stride, False)
    for own in tl.static_range(STRIP):
        there = mask & (oh + own < y_shape[3])
        total = totals[own]
        if bias_ptr is not None:
            total += widen(tl.load(bias_ptr + f * bias_stride, mask=in_f, other=0.0))
        if residual_ptr is not None:
            at = place(n, f, od, oh + own, ow, 0, residual_stride, False)
            total += widen(tl.load(residual_ptr + at, mask=there, other=0.0))
        total = narrow(activate(total, ACTIVATION, slope), y_ptr)
        tl.store(first + apart(0, own, 0, y_stride), total, mask=there)


def _tiling(out: torch.Tensor) -> dict[str, Any]:
    """The arguments of elements.walk over ``out``, and the warps, from the table."""
    last = runtime.channels_last(out)
    (row,) = conv_tiles.rows(out.dtype, "depthwise", last)
    widest = row.block_n if last else row.block_m
    tiling = runtime.tile(out, row.block_m * row.block_n, widest)
    return {**tiling, "num_warps": row.warps}


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    y: torch.Tensor,
    window: dict[str, Any],
    activation: str,
    slope: float,
    turned: bool = False,
) -> torch.Tensor:
    """``y``, written."""
    if y.numel() == 0:
        return y
    wide = runtime.wide(x, weight, y, *([] if residual is None else [residual]))
    taps = math.prod(window["KERNEL"])
    strip = STRIP if taps <= UNROLLED_TAPS and y.ndim > 3 and not wide else 1
    depth, height, width = runtime.spread(y.shape[2:], 1)
    last = runtime.channels_last(y)
    if strip > 1 and not last:
        reach = (window["KERNEL"][1] - 1) * window["DILATION"][1] + 1
        strip = runtime.strip_of(height, window["STRIDE"][1], reach)
    size = depth, triton.cdiv(height, strip), width
    # Of channels as many a thread as 16 bytes of x are; half with a stride, whose strips read twice
    # as many rows. One of pixels, whose strips are longer.
    elements = 2048 // y.element_size() // (1 if set(window["STRIDE"]) == {1} else 2)
    if not last:
        elements = 128
    tiling = runtime.tile(y, elements if strip > 1 else 1024, size=size)
    runtime.launch(
        depthwise_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        weight,
        bias,
        residual,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.stride(weight),
        0 if bias is None else bias.stride(0),
        runtime.stride(y if residual is None else residual),
        runtime.shape(y.shape),
        runtime.stride(y),
        (*y.shape[:2], *size),
        y.shape[1] // x.shape[1],
        **tiling,
        **window,
        ACTIVATION=activation,
        slope=float(slope),
        TURNED=turned,
        STRIP=strip,
        UNROLL=taps if taps <= 16 else 1,  # two at once spill a register of float64
        WIDE=wide,
        maxnreg=runtime.ALL_REGISTERS,
    )
    return y


@triton.jit
def depthwise_grad_input_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    weight_ptr,  # (F, 1, KD, KH, KW), any strides
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    y_shape,
    grad_y_stride,
    weight_stride,
    x_shape,
    multiplier,  # F / C
    rows,
    columns,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,
    TAPS: tl.constexpr,  # the most taps of a class, each axis
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(x_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    first_d, _, tap_d, taps_d, start_d = residue_class(
        (d + PADDING[0]) % STRIDE[0],
        x_shape[2],
        KERNEL[0],
        STRIDE[0],
        PADDING[0],
        DILATION[0],
        TAP_STEP[0],
    )
    first_h, _, tap_h, taps_h, start_h = residue_class(
        (h + PADDING[1]) % STRIDE[1],
        x_shape[3],
        KERNEL[1],
        STRIDE[1],
        PADDING[1],
        DILATION[1],
        TAP_STEP[1],
    )
    first_w, _, tap_w, taps_w, start_w = residue_class(
        (w + PADDING[2]) % STRIDE[2],
        x_shape[4],
        KERNEL[2],
        STRIDE[2],
        PADDING[2],
        DILATION[2],
        TAP_STEP[2],
    )
    start_d += (d - first_d) // STRIDE[0]
    start_h += (h - first_h) // STRIDE[1]
    start_w += (w - first_w) // STRIDE[2]
    image = grad_y_ptr + n * grad_y_stride[0]
    total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
    for which in range(multiplier):
        f = c * multiplier + which
        plane = image + f * grad_y_stride[1]
        filter = weight_ptr + f * weight_stride[0]
        for step in tl.range(0, TAPS[0] * TAPS[1] * TAPS[2], loop_unroll_factor=UNROLL):
            trip = as_offset(step, WIDE)
            jd = trip // (TAPS[1] * TAPS[2])
            jh = trip // TAPS[2] % TAPS[1]
            jw = trip % TAPS[2]
            od = start_d - jd * (DILATION[0] * TAP_STEP[0] // STRIDE[0])
            oh = start_h - jh * (DILATION[1] * TAP_STEP[1] // STRIDE[1])
            ow = start_w - jw * (DILATION[2] * TAP_STEP[2] // STRIDE[2])
            exists = c < x_shape[1]
            if STRIDE[0] > 1:
                exists = exists & (jd < taps_d)
            if STRIDE[1] > 1:
                exists = exists & (jh < taps_h)
            if STRIDE[2] > 1:
                exists = exists & (jw < taps_w)
            read = mask & exists & (od >= 0) & (od < y_shape[2])
            read = read & (oh >= 0) & (oh < y_shape[3])
            read = read & (ow >= 0) & (ow < y_shape[4])
            at = od * grad_y_stride[2] + oh * grad_y_stride[3] + ow * grad_y_stride[4]
            grad_y = tl.load(plane + at, mask=read, other=0.0)  # [ROWS, COLUMNS]
            at = (tap_d + jd * TAP_STEP[0]) * weight_stride[2]
            at += (tap_h + jh * TAP_STEP[1]) * weight_stride[3]
            at += (tap_w + jw * TAP_STEP[2]) * weight_stride[4]
            weight = tl.load(filter + at, mask=exists, other=0.0)
            # Where nothing is read there is no product, were the weight infinite.
            total += tl.where(read, widen(grad_y) * widen(weight), 0.0)
    tl.store(grad_x_ptr + offset, narrow(total, grad_x_ptr), mask=mask)


def grad_input(
    grad_y: torch.Tensor, weight: torch.Tensor, grad_x: torch.Tensor, window: dict[str, Any]
) -> torch.Tensor:
    """``grad_x``, written."""
    if grad_x.numel() == 0:
        return grad_x
    if set(window["STRIDE"]) == {1} and grad_y.shape[1] == grad_x.shape[1]:
        # A convolution of grad_y with the filters turned round.
        axes = zip(window["KERNEL"], window["PADDING"], window["DILATION"], strict=True)
        padding = tuple((taps - 1) * step - before for taps, before, step in axes)
        window = window | {"PADDING": padding}
        return forward(grad_y, weight, None, None, grad_x, window, "none", 0.0, turned=True)
    tiling = _tiling(grad_x)
    wide = runtime.wide(grad_y, weight, grad_x)
    steps = conv_tiles.tap_steps(window["STRIDE"], window["DILATION"])
    taps = tuple(triton.cdiv(k, s) for k, s in zip(window["KERNEL"], steps, strict=True))
    runtime.launch(
        depthwise_grad_input_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        weight,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.stride(weight),
        runtime.shape(grad_x.shape),
        grad_y.shape[1] // grad_x.shape[1],
        **tiling,
        **window,
        TAP_STEP=steps,
        TAPS=taps,
        UNROLL=math.prod(taps) if math.prod(taps) <= UNROLLED_TAPS and not wide else 4,
        WIDE=wide,
        maxnreg=runtime.ALL_REGISTERS,
    )
    return grad_x
