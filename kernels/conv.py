"""Convolution over D, H, W with groups, and its three gradients (definition: csrc/conv.h), each an
implicit GEMM.

    forward      y[m, f]       = activation(bias[f] + residual[m, f]
                                 + sum over (t, c) of x[at(m, t), c] * weight[f, c, t])
    grad input   grad_x[m, c]  = sum over (t, f) of grad_y[from(m, t), f] * weight[f, c, t]
    grad weight  grad_w[f, (t, c)] = sum over m of grad_y[m, f] * x[at(m, t), c]
    grad bias    grad_b[f]     = sum over m of grad_y[m, f]

m is a pixel of the result (grad weight and bias: of grad_y), t a tap; at(m, t) = o * stride -
padding + t * dilation, and from(m, t) its inverse: the o with at(o, t) = m, where there is one. No
matrix of patches is ever written: a program gathers each tile of it from the map, and dilation is
only an offset. Grad input is the forward product with x and grad_y in exchanged roles, so both are
one kernel.

Grad input with stride s: the pixels m fall into s classes an axis by (m + padding) mod s, and for
all pixels of a class the same taps have a from(m, t): every s / gcd(s, dilation)-th. So each class
is a dense convolution of its own with stride 1 and dilation / gcd, over about taps / s of the taps
(conv_tiles.residue_class). A program knows its class from its number; the classes write disjoint
pixels, those that no tap reaches write zeros, so nothing is filled with zeros first and nothing is
atomic. Multiply-adds, forward and grad input alike, 3 x 3 taps with stride 2: N * OH * OW * F * C/G
* 9, for a class of N * OH * OW pixels has 4, 2, 2 or 1 of the 9 taps; a sum over all taps with the
missing pixels as zeros takes four times as many. In general taps / gcd(s, dilation) an axis where
that sum takes s * taps / gcd. The classes of one place run one after the other: they read the same
pixels of grad_y, and what they write meets in the L2 cache.

What cannot be avoided is 2 * N * OD * OH * OW * F * C/G * taps operations, on the tensor cores for
float16 and bfloat16 (with float32 accumulators), float64, and float32 where PyTorch's flags allow
TF32 (conv_tiles.input_precision); else in full float32 on the ordinary units. Each operand is read
from DRAM about once: the programs that share a tile of pixels are neighbours, so it stays in the L2
cache. The epilogue costs the residual's bytes and no pass of its own.

Layouts: any strides. A tile of a map is loaded with the axis that is contiguous in memory along the
lanes (channels, or pixels) and transposed on its way into the product. K runs tap by tap with the
channels inside, a block of K within one tap, so that where a block reads is found once per pixel;
where the channels are few (a first layer), taps and channels are one sequence (MERGED) and found
once per element. 1-D and 2-D are depth 1: what is constant folds away.

Why this form: the simplest one that is right for every shape, runs on tensor cores and multiplies
no zeros but those of the padding. One channel a group has kernels of its own (conv_depthwise.py).
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from pydl.contract.conv import ConvForward, ConvGradInput

from . import conv_depthwise, conv_tiles, runtime
from .bias_act import activate
from .conv_tiles import residue_class, taps_of
from .conv_weight import conv_grad_bias, conv_grad_weight
from .elements import as_offset, filled, inline, narrow, operand, pixel, widen

__all__ = ["conv_forward", "conv_grad_bias", "conv_grad_input", "conv_grad_weight"]


@inline
def gathered(
    residue,
    size,
    INVERSE: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,
):
    """What of one axis a program writes and gathers: residue_class's five numbers; forward all
    elements, all taps and where the first window starts."""
    if INVERSE:
        return residue_class(residue, size, KERNEL, STRIDE, PADDING, DILATION, TAP_STEP)
    else:
        return 0, size, 0, KERNEL, -PADDING


@inline
def source(
    position,
    tap,
    start,
    size,
    INVERSE: tl.constexpr,
    STRIDE: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,
):
    """Where of one axis the tap-th gathered tap reads for the position-th element, and whether that
    is inside."""
    if INVERSE:
        at = start + position - tap * (DILATION * TAP_STEP // STRIDE)
    else:
        at = start + position * STRIDE + tap * DILATION
    return at, (at >= 0) & (at < size)


@triton.jit
def conv_kernel(
    a_ptr,  # INVERSE: grad_y (N, F, OD, OH, OW), else x (N, C, D, H, W); any strides
    weight_ptr,  # (F, C/G, KD, KH, KW), any strides
    bias_ptr,  # (F,) or None
    residual_ptr,  # like out, any strides, or None
    out_ptr,  # INVERSE: grad_x (N, C, D, H, W), else y (N, F, OD, OH, OW); written
    a_shape,
    a_stride,
    weight_stride,
    bias_stride,
    residual_stride,
    out_shape,
    out_stride,
    m_blocks,  # of the pixels of out; INVERSE: of its largest class of pixels
    k_channels,  # channels a group of a: C/G, INVERSE: F/G
    n_channels,  # channels a group of out: F/G, INVERSE: C/G
    slope: tl.float64,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,  # conv_tiles.tap_steps; forward not used
    INVERSE: tl.constexpr,
    MERGED: tl.constexpr,
    A_CHANNELS_LAST: tl.constexpr,
    OUT_CHANNELS_LAST: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    CLASSES: tl.constexpr = STRIDE[0] * STRIDE[1] * STRIDE[2] if INVERSE else 1
    n_blocks = (n_channels + BLOCK_N - 1) // BLOCK_N
    n = program % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    residue = program // n_blocks % CLASSES
    m_first = program // (n_blocks * CLASSES) % m_blocks * BLOCK_M
    m = m_first + tl.arange(0, BLOCK_M)
    group = program // (n_blocks * CLASSES) // m_blocks
    k = as_offset(tl.arange(0, BLOCK_K), WIDE)

    first_d, count_d, tap_d, taps_d, start_d = gathered(
        residue // (STRIDE[2] * STRIDE[1]),
        out_shape[2],
        INVERSE,
        KERNEL[0],
        STRIDE[0],
        PADDING[0],
        DILATION[0],
        TAP_STEP[0],
    )
    first_h, count_h, tap_h, taps_h, start_h = gathered(
        residue // STRIDE[2] % STRIDE[1],
        out_shape[3],
        INVERSE,
        KERNEL[1],
        STRIDE[1],
        PADDING[1],
        DILATION[1],
        TAP_STEP[1],
    )
    first_w, count_w, tap_w, taps_w, start_w = gathered(
        residue % STRIDE[2],
        out_shape[4],
        INVERSE,
        KERNEL[2],
        STRIDE[2],
        PADDING[2],
        DILATION[2],
        TAP_STEP[2],
    )
    if CLASSES > 1:  # a map smaller than the stride leaves classes without pixels
        count_d = tl.maximum(count_d, 1)
        count_h = tl.maximum(count_h, 1)
        count_w = tl.maximum(count_w, 1)
    taps = as_offset(taps_d * taps_h * taps_w, WIDE)
    if MERGED:
        blocks = (taps * k_channels + BLOCK_K - 1) // BLOCK_K
    else:
        blocks = taps * ((k_channels + BLOCK_K - 1) // BLOCK_K)
    if CLASSES > 1:  # the last programs of a class smaller than the largest have nothing to do
        image, _, _, _ = pixel(m_first, count_d, count_h, count_w)
        blocks = tl.where(image < out_shape[0], blocks, 0)

    # The lanes, which follow the last axis, run along what is contiguous in memory.
    a_m = m[:, None] if A_CHANNELS_LAST else m[None, :]
    a_k = k[None, :] if A_CHANNELS_LAST else k[:, None]
    w_k = k[:, None] if INVERSE else k[None, :]
    w_n = n[None, :] if INVERSE else n[:, None]
    image, md, mh, mw = pixel(a_m, count_d, count_h, count_w)
    in_m = image < out_shape[0]
    a_image = a_ptr + image * a_stride[0] + group * k_channels * a_stride[1]
    if INVERSE:
        w_column = weight_ptr + group * k_channels * weight_stride[0] + w_n * weight_stride[1]
        k_stride = weight_stride[0]
    else:
        w_column = weight_ptr + (group * n_channels + w_n) * weight_stride[0]
        k_stride = weight_stride[1]

    total = filled([BLOCK_M, BLOCK_N], 0.0, a_ptr)
    kernel = (taps_d, taps_h, taps_w)
    for step in range(blocks):
        block = as_offset(step, WIDE)
        td, th, tw, channel, in_k = taps_of(block, a_k, k_channels, kernel, BLOCK_K, MERGED)
        d, in_d = source(md, td, start_d, a_shape[2], INVERSE, STRIDE[0], DILATION[0], TAP_STEP[0])
        h, in_h = source(mh, th, start_h, a_shape[3], INVERSE, STRIDE[1], DILATION[1], TAP_STEP[1])
        w, in_w = source(mw, tw, start_w, a_shape[4], INVERSE, STRIDE[2], DILATION[2], TAP_STEP[2])
        a = tl.load(
            a_image + (d * a_stride[2] + h * a_stride[3] + w * a_stride[4]) + channel * a_stride[1],
            mask=in_m & in_d & in_h & in_w & in_k,
            other=0.0,
        )
        if not A_CHANNELS_LAST:
            a = tl.trans(a)  # [BLOCK_M, BLOCK_K]
        td, th, tw, channel, in_k = taps_of(block, w_k, k_channels, kernel, BLOCK_K, MERGED)
        if INVERSE:
            td = tap_d + td * TAP_STEP[0]
            th = tap_h + th * TAP_STEP[1]
            tw = tap_w + tw * TAP_STEP[2]
        b = tl.load(
            w_column
            + (td * weight_stride[2] + th * weight_stride[3] + tw * weight_stride[4])
            + channel * k_stride,
            mask=in_k & (w_n < n_channels),
            other=0.0,
        )
        if not INVERSE:
            b = tl.trans(b)  # [BLOCK_K, BLOCK_N]
        total = tl.dot(
            operand(a, INPUT_PRECISION),
            operand(b, INPUT_PRECISION),
            total,
            input_precision=INPUT_PRECISION,
            out_dtype=total.dtype,
        )

    if not OUT_CHANNELS_LAST:
        total = tl.trans(total)
    out_m = m[:, None] if OUT_CHANNELS_LAST else m[None, :]
    out_n = n[None, :] if OUT_CHANNELS_LAST else n[:, None]
    feature = group * n_channels + out_n
    image, d, h, w = pixel(out_m, count_d, count_h, count_w)
    mask = (image < out_shape[0]) & (out_n < n_channels)
    if CLASSES > 1:
        d = first_d + d * STRIDE[0]
        h = first_h + h * STRIDE[1]
        w = first_w + w * STRIDE[2]
        mask = mask & (d < out_shape[2]) & (h < out_shape[3]) & (w < out_shape[4])
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + feature * bias_stride, mask=out_n < n_channels, other=0.0)
        total += widen(bias)
    if residual_ptr is not None:
        offset = (
            image * residual_stride[0]
            + feature * residual_stride[1]
            + d * residual_stride[2]
            + h * residual_stride[3]
            + w * residual_stride[4]
        )
        total += widen(tl.load(residual_ptr + offset, mask=mask, other=0.0))
    offset = (
        image * out_stride[0]
        + feature * out_stride[1]
        + d * out_stride[2]
        + h * out_stride[3]
        + w * out_stride[4]
    )
    tl.store(out_ptr + offset, narrow(activate(total, ACTIVATION, slope), out_ptr), mask=mask)


def _multiply(
    a: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    out: torch.Tensor,
    window: dict[str, Any],
    groups: int,
    inverse: bool,
    activation: str = "none",
    slope: float = 0.0,
) -> torch.Tensor:
    """Launches conv_kernel, one program per group and BLOCK_M x BLOCK_N elements of ``out``, or of
    one of its classes."""
    if out.numel() == 0:
        return out
    stride = window["STRIDE"] if inverse else (1, 1, 1)
    size = [triton.cdiv(n, s) for n, s in zip(runtime.shape(out.shape)[2:], stride, strict=True)]
    pixels = out.shape[0] * math.prod(size)
    k_channels, n_channels = a.shape[1] // groups, out.shape[1] // groups
    last = runtime.channels_last(a)
    tile = conv_tiles.product(a.dtype, pixels, n_channels, k_channels, last)
    m_blocks = triton.cdiv(pixels, tile["BLOCK_M"])
    n_blocks = triton.cdiv(n_channels, tile["BLOCK_N"])
    runtime.launch(
        conv_kernel,
        groups * m_blocks * math.prod(stride) * n_blocks,
        a.device,
        a,
        weight,
        bias,
        residual,
        out,
        runtime.shape(a.shape),
        runtime.stride(a),
        runtime.stride(weight),
        0 if bias is None else bias.stride(0),
        runtime.stride(out if residual is None else residual),
        runtime.shape(out.shape),
        runtime.stride(out),
        m_blocks,
        k_channels,
        n_channels,
        **tile,
        **window,
        TAP_STEP=conv_tiles.tap_steps(window["STRIDE"], window["DILATION"]),
        INVERSE=inverse,
        MERGED=k_channels < conv_tiles.MERGED_BELOW,
        A_CHANNELS_LAST=last,
        OUT_CHANNELS_LAST=runtime.channels_last(out),
        ACTIVATION=activation,
        slope=float(slope),
        WIDE=runtime.wide(a, weight, out, *([] if residual is None else [residual])),
    )
    return out


def conv_forward(call: ConvForward) -> torch.Tensor:
    """y, channels last if ``x`` or ``weight`` is."""
    x, weight, bias, residual, *window, groups, activation, slope = call
    y = call.results()
    window = runtime.window(weight.shape[2:], *window)
    if conv_tiles.depthwise(weight.shape[1], weight.shape[0] // groups):
        return conv_depthwise.forward(x, weight, bias, residual, y, window, activation, slope)
    return _multiply(x, weight, bias, residual, y, window, groups, False, activation, slope)


def conv_grad_input(call: ConvGradInput) -> torch.Tensor:
    """grad_x, channels last if ``grad_y`` or ``weight`` is."""
    grad_y, weight, _, *window, groups = call
    grad_x = call.results()
    window = runtime.window(weight.shape[2:], *window)
    if conv_tiles.depthwise(weight.shape[1], weight.shape[0] // groups):
        return conv_depthwise.grad_input(grad_y, weight, grad_x, window)
    return _multiply(grad_y, weight, None, None, grad_x, window, groups, inverse=True)
