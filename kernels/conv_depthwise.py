"""Depthwise convolution, one channel a group, and its gradients (definition: csrc/conv.h), without
a product of matrices.

    forward      y[n, f, o]      = activation(bias[f] + residual[n, f, o] + sum over t of
                                   x[n, f // multiplier, o * stride - padding + t * dilation]
                                   * weight[f, t])
    grad input   grad_x[n, c, i] = sum over the multiplier's f of c, and the t and o with
                                   o * stride - padding + t * dilation = i, of
                                   grad_y[n, f, o] * weight[f, t]
    grad weight  grad_w[f, t]    = sum over n, o of
                                   grad_y[n, f, o] * x[n, f // multiplier, at(o, t)]

Forward and grad input cover ROWS x COLUMNS elements of what they write a program, pixels by
channels in the order of memory (elements.walk), with the taps unrolled (runtime.unroll). An element
of grad_x visits only the taps that read it, every stride / gcd(stride, dilation)-th of each axis
from one that its residue says (conv_tiles.residue_class): 4 of 3 x 3 with stride 2, none beyond the
edges of a class but what pads the uneven ones. Grad weight gives a program BLOCK_M pixels x BLOCK_N
channels x BLOCK_K taps at a time; it runs over its share of the pixels, keeps the products apart
until the end and writes one part a channel and tap, which split.py adds up in order.

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
from .elements import as_offset, filled, narrow, pixel, read_at, walk, widen
from .split import parts_of, split_of, sum_parts

# Grad input unrolls no more taps than this entirely, and none with 64-bit offsets: with a stride
# each lane has taps of its own, whose offsets take registers.
UNROLLED_TAPS = 9


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
    multiplier,  # F / C
    rows,
    columns,
    slope: tl.float64,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, f, od, oh, ow, offset, mask = walk(
        y_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE
    )
    in_f = f < y_shape[1]
    plane = x_ptr + n * x_stride[0] + f // multiplier * x_stride[1]
    filter = weight_ptr + f * weight_stride[0]
    total = filled([ROWS, COLUMNS], 0.0, x_ptr)
    for step in tl.range(0, KERNEL[0] * KERNEL[1] * KERNEL[2], loop_unroll_factor=UNROLL):
        tap = as_offset(step, WIDE)
        td = tap // (KERNEL[1] * KERNEL[2])
        th = tap // KERNEL[2] % KERNEL[1]
        tw = tap % KERNEL[2]
        d, in_d = read_at(od, td, x_shape[2], STRIDE[0], PADDING[0], DILATION[0])
        h, in_h = read_at(oh, th, x_shape[3], STRIDE[1], PADDING[1], DILATION[1])
        w, in_w = read_at(ow, tw, x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        x = tl.load(
            plane + d * x_stride[2] + h * x_stride[3] + w * x_stride[4],
            mask=mask & in_d & in_h & in_w,
            other=0.0,
        )  # [ROWS, COLUMNS]
        weight = tl.load(
            filter + td * weight_stride[2] + th * weight_stride[3] + tw * weight_stride[4],
            mask=in_f,
            other=0.0,
        )
        total += widen(x) * widen(weight)
    if bias_ptr is not None:
        total += widen(tl.load(bias_ptr + f * bias_stride, mask=in_f, other=0.0))
    if residual_ptr is not None:
        at = n * residual_stride[0] + f * residual_stride[1] + od * residual_stride[2]
        at += oh * residual_stride[3] + ow * residual_stride[4]
        total += widen(tl.load(residual_ptr + at, mask=mask, other=0.0))
    tl.store(y_ptr + offset, narrow(activate(total, ACTIVATION, slope), y_ptr), mask=mask)


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
) -> torch.Tensor:
    """``y``, written."""
    if y.numel() == 0:
        return y
    tiling = _tiling(y)
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
        y.shape[1] // x.shape[1],
        **tiling,
        **window,
        ACTIVATION=activation,
        slope=float(slope),
        UNROLL=runtime.unroll(math.prod(window["KERNEL"])),
        WIDE=runtime.wide(x, weight, y, *([] if residual is None else [residual])),
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
    )
    return grad_x


@triton.jit
def depthwise_grad_weight_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    part_ptr,  # (splits, F, taps), dense, written
    y_shape,
    grad_y_stride,
    x_shape,
    x_stride,
    multiplier,  # F / C
    pixels,  # N * OD * OH * OW
    split_blocks,  # blocks of BLOCK_M pixels a split
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    KERNEL_TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    K_BLOCKS: tl.constexpr = (KERNEL_TAPS + BLOCK_K - 1) // BLOCK_K
    features = y_shape[1]
    n_blocks = (features + BLOCK_N - 1) // BLOCK_N
    f = program // K_BLOCKS % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    tap = program % K_BLOCKS * BLOCK_K + tl.arange(0, BLOCK_K)
    split = program // K_BLOCKS // n_blocks
    m = tl.arange(0, BLOCK_M)
    # The lanes, which follow the last axis, run along what is contiguous in memory.
    if CHANNELS_LAST:
        m = m[None, :, None]
        f = f[None, None, :]
        total = filled([BLOCK_K, BLOCK_M, BLOCK_N], 0.0, x_ptr)
    else:
        m = m[None, None, :]
        f = f[None, :, None]
        total = filled([BLOCK_K, BLOCK_N, BLOCK_M], 0.0, x_ptr)
    tap = tap[:, None, None]
    td = tap // (KERNEL[1] * KERNEL[2])
    th = tap // KERNEL[2] % KERNEL[1]
    tw = tap % KERNEL[2]
    grad_y_feature = grad_y_ptr + f * grad_y_stride[1]
    x_channel = x_ptr + f // multiplier * x_stride[1]
    for block in range(split_blocks):
        index = (split * split_blocks + block) * BLOCK_M + m
        image, od, oh, ow = pixel(index, y_shape[2], y_shape[3], y_shape[4])
        at = image * grad_y_stride[0] + od * grad_y_stride[2]
        at += oh * grad_y_stride[3] + ow * grad_y_stride[4]
        mask = (index < pixels) & (f < features)
        grad_y = tl.load(grad_y_feature + at, mask=mask, other=0.0)
        d, in_d = read_at(od, td, x_shape[2], STRIDE[0], PADDING[0], DILATION[0])
        h, in_h = read_at(oh, th, x_shape[3], STRIDE[1], PADDING[1], DILATION[1])
        w, in_w = read_at(ow, tw, x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        at = image * x_stride[0] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
        x = tl.load(x_channel + at, mask=mask & (tap < KERNEL_TAPS) & in_d & in_h & in_w, other=0.0)
        total += widen(grad_y) * widen(x)
    # [BLOCK_K, 1, BLOCK_N] or [BLOCK_K, BLOCK_N, 1], as f
    total = tl.sum(total, axis=1 if CHANNELS_LAST else 2, keep_dims=True)
    offset = (split * features + f) * KERNEL_TAPS + tap
    tl.store(part_ptr + offset, narrow(total, part_ptr), mask=(f < features) & (tap < KERNEL_TAPS))


def grad_weight(
    grad_y: torch.Tensor, x: torch.Tensor, grad_weight: torch.Tensor, window: dict[str, Any]
) -> torch.Tensor:
    """``grad_weight``, written. ``grad_y`` is not empty."""
    features, taps = grad_y.shape[1], math.prod(window["KERNEL"])
    pixels = grad_y.numel() // features
    last = runtime.channels_last(grad_y)
    (row,) = conv_tiles.rows(x.dtype, "depthwise", last)
    block_m = min(row.block_m, runtime.power_of_two(pixels))
    block_n = min(row.block_n, runtime.power_of_two(features))
    block_k = min(row.block_k, runtime.power_of_two(taps))
    programs = triton.cdiv(features, block_n) * triton.cdiv(taps, block_k)
    splits, split_blocks = split_of(pixels, programs, block_m)
    parts = parts_of(grad_weight, splits)
    wide = runtime.wide(grad_y, x, parts)
    runtime.launch(
        depthwise_grad_weight_kernel,
        programs * splits,
        x.device,
        grad_y,
        x,
        parts,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(x.shape),
        runtime.stride(x),
        features // x.shape[1],
        pixels,
        split_blocks,
        **window,
        CHANNELS_LAST=last,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        WIDE=wide,
        num_warps=row.warps,
        maxnreg=runtime.ALL_REGISTERS if wide else None,
    )
    return sum_parts(parts, grad_weight)
