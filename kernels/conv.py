"""Convolution over D, H, W with groups, and its three gradients (definition: csrc/conv.h), each an
implicit GEMM.

    forward      y[m, f]       = bias[f] + sum over (t, c) of x[at(m, t), c] * weight[f, c, t]
    grad input   grad_x[m, c]  = sum over (t, f) of grad_y[from(m, t), f] * weight[f, c, t]
    grad weight  grad_w[f, (t, c)] = sum over m of grad_y[m, f] * x[at(m, t), c]
    grad bias    grad_b[f]     = sum over m of grad_y[m, f]

m is a pixel of the result (grad weight and bias: of grad_y), t a tap; at(m, t) = o * stride -
padding + t * dilation, and from(m, t) its inverse: the o with at(o, t) = m, where there is one. No
matrix of patches is ever written: a program gathers each tile of it from the map, and dilation is
only an offset. Grad input is the forward product with x and grad_y in exchanged roles, so both are
one kernel.

What cannot be avoided is 2 * N * OD * OH * OW * F * C/G * taps operations, on the tensor cores for
float16 and bfloat16 (with float32 accumulators) and float64, in full float32 (no TF32) on the
ordinary units for float32. Each operand is read from DRAM about once: the programs that share a
tile of pixels are neighbours, so it stays in the L2 cache.

Layouts: any strides. A tile of a map is loaded with the axis that is contiguous in memory along the
lanes (channels, or pixels) and transposed on its way into the product. K runs tap by tap with the
channels inside, a block of K within one tap, so that where a block reads is found once a pixel;
where the channels are few (a first layer, depthwise), taps and channels are one sequence (MERGED)
and found once an element.

Why this form: the simplest one that is right for every shape and runs on tensor cores. With stride
s, grad input multiplies s^d times more zeros than it needs to, and depthwise fills a 16-wide tile
with one channel: the next kernels' work.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from pydl import layout

from . import conv_tiles, runtime
from .conv_tiles import taps_of, written_at
from .conv_weight import conv_grad_bias, conv_grad_weight
from .elements import filled, narrow, operand, pixel, read_at, widen

__all__ = ["conv_forward", "conv_grad_bias", "conv_grad_input", "conv_grad_weight"]


@triton.jit
def conv_kernel(
    a_ptr,  # INVERSE: grad_y (N, F, OD, OH, OW), else x (N, C, D, H, W); any strides
    weight_ptr,  # (F, C/G, KD, KH, KW), any strides
    bias_ptr,  # (F,) or None
    out_ptr,  # INVERSE: grad_x (N, C, D, H, W), else y (N, F, OD, OH, OW); written
    a_shape,
    a_stride,
    weight_stride,
    bias_stride,
    out_shape,
    out_stride,
    pixels,  # N times the pixels of a map of out: M
    k_channels,  # channels a group of a: C/G, INVERSE: F/G
    n_channels,  # channels a group of out: F/G, INVERSE: C/G
    blocks,  # of the sequence of taps and k_channels: K
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    INVERSE: tl.constexpr,
    MERGED: tl.constexpr,
    A_CHANNELS_LAST: tl.constexpr,
    OUT_CHANNELS_LAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    n_blocks = (n_channels + BLOCK_N - 1) // BLOCK_N
    m_blocks = (pixels + BLOCK_M - 1) // BLOCK_M
    group = program // (n_blocks * m_blocks)
    m = program // n_blocks % m_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    n = program % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    if WIDE:
        k = k.to(tl.int64)

    # The lanes, which follow the last axis, run along what is contiguous in memory.
    a_m = m[:, None] if A_CHANNELS_LAST else m[None, :]
    a_k = k[None, :] if A_CHANNELS_LAST else k[:, None]
    w_k = k[:, None] if INVERSE else k[None, :]
    w_n = n[None, :] if INVERSE else n[:, None]
    image, md, mh, mw = pixel(a_m, out_shape[2], out_shape[3], out_shape[4])
    a_image = a_ptr + image * a_stride[0] + group * k_channels * a_stride[1]
    if INVERSE:
        w_column = weight_ptr + group * k_channels * weight_stride[0] + w_n * weight_stride[1]
        k_stride = weight_stride[0]
    else:
        w_column = weight_ptr + (group * n_channels + w_n) * weight_stride[0]
        k_stride = weight_stride[1]

    total = filled([BLOCK_M, BLOCK_N], 0.0, a_ptr)
    for block in range(blocks):
        td, th, tw, channel, in_k = taps_of(block, a_k, k_channels, KERNEL, BLOCK_K, MERGED)
        if INVERSE:
            d, in_d = written_at(md, td, a_shape[2], STRIDE[0], PADDING[0], DILATION[0])
            h, in_h = written_at(mh, th, a_shape[3], STRIDE[1], PADDING[1], DILATION[1])
            w, in_w = written_at(mw, tw, a_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        else:
            d, in_d = read_at(md, td, a_shape[2], STRIDE[0], PADDING[0], DILATION[0])
            h, in_h = read_at(mh, th, a_shape[3], STRIDE[1], PADDING[1], DILATION[1])
            w, in_w = read_at(mw, tw, a_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        a = tl.load(
            a_image + (d * a_stride[2] + h * a_stride[3] + w * a_stride[4]) + channel * a_stride[1],
            mask=(a_m < pixels) & in_d & in_h & in_w & in_k,
            other=0.0,
        )
        if not A_CHANNELS_LAST:
            a = tl.trans(a)  # [BLOCK_M, BLOCK_K]
        td, th, tw, channel, in_k = taps_of(block, w_k, k_channels, KERNEL, BLOCK_K, MERGED)
        b = tl.load(
            w_column
            + (td * weight_stride[2] + th * weight_stride[3] + tw * weight_stride[4])
            + channel * k_stride,
            mask=in_k & (w_n < n_channels),
            other=0.0,
        )
        if not INVERSE:
            b = tl.trans(b)  # [BLOCK_K, BLOCK_N]
        total = tl.dot(operand(a), operand(b), total, input_precision="ieee", out_dtype=total.dtype)

    if not OUT_CHANNELS_LAST:
        total = tl.trans(total)
    out_m = m[:, None] if OUT_CHANNELS_LAST else m[None, :]
    out_n = n[None, :] if OUT_CHANNELS_LAST else n[:, None]
    in_n = out_n < n_channels
    feature = group * n_channels + out_n
    if bias_ptr is not None:
        total += widen(tl.load(bias_ptr + feature * bias_stride, mask=in_n, other=0.0))
    image, d, h, w = pixel(out_m, out_shape[2], out_shape[3], out_shape[4])
    offset = (
        image * out_stride[0]
        + feature * out_stride[1]
        + d * out_stride[2]
        + h * out_stride[3]
        + w * out_stride[4]
    )
    tl.store(out_ptr + offset, narrow(total, out_ptr), mask=(out_m < pixels) & in_n)


def _multiply(
    a: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    out: torch.Tensor,
    window: dict[str, Any],
    groups: int,
    inverse: bool,
) -> torch.Tensor:
    """Launches conv_kernel, a program a group and BLOCK_M x BLOCK_N elements of ``out``."""
    if out.numel() == 0:
        return out
    pixels = out.numel() // out.shape[1]
    k_channels, n_channels = a.shape[1] // groups, out.shape[1] // groups
    tile = conv_tiles.product(a.dtype, pixels, n_channels, runtime.channels_last(a))
    runtime.launch(
        conv_kernel,
        groups * triton.cdiv(pixels, tile["BLOCK_M"]) * triton.cdiv(n_channels, tile["BLOCK_N"]),
        a.device,
        a,
        weight,
        bias,
        out,
        runtime.shape(a.shape),
        runtime.stride(a),
        runtime.stride(weight),
        0 if bias is None else bias.stride(0),
        runtime.shape(out.shape),
        runtime.stride(out),
        pixels,
        k_channels,
        n_channels,
        **conv_tiles.tap_blocks(k_channels, math.prod(window["KERNEL"]), tile["BLOCK_K"]),
        **tile,
        **window,
        INVERSE=inverse,
        A_CHANNELS_LAST=runtime.channels_last(a),
        OUT_CHANNELS_LAST=runtime.channels_last(out),
        WIDE=runtime.wide(a, weight, out),
    )
    return out


def conv_forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
) -> torch.Tensor:
    """y, channels last if ``x`` or ``weight`` is."""
    if residual is not None or activation != "none":
        raise NotImplementedError("the epilogue")
    y = layout.conv_output(x, weight, stride, padding, dilation)
    window = runtime.window(weight.shape[2:], stride, padding, dilation)
    return _multiply(x, weight, bias, y, window, groups, inverse=False)


def conv_grad_input(
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    """grad_x, channels last if ``grad_y`` or ``weight`` is."""
    grad_x = layout.conv_input(grad_y, weight, input_size, groups)
    window = runtime.window(weight.shape[2:], stride, padding, dilation)
    return _multiply(grad_y, weight, None, grad_x, window, groups, inverse=True)
