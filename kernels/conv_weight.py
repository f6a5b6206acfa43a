"""The gradients of a convolution's weight and bias (definition: csrc/conv.h): sums over all pixels
of grad_y.

    grad_w[f, (t, c)] = sum over m of grad_y[m, f] * x[m * stride - padding + t * dilation, c]
    grad_b[f]         = sum over m of grad_y[m, f]

The first is a product of (F/G) x (taps * C/G) that runs over m = (n, od, oh, ow): few and small
results, a very long sum. So the pixels are split: a program sums BLOCK_M x BLOCK_N results over its
share of them into a part of its own, in float32, and split.py adds the parts up in order.
The number of splits depends on the shape alone and nothing is atomic, so the results repeat bit for
bit; the shorter sums are also the more accurate ones. Beside grad_y and x, which are read about
once per tile, the parts cost at most SPLIT_PROGRAMS tiles of memory.

Layouts, tiles and the sequence of taps and channels are those of conv.py, with the columns of the
product in place of its K.
"""

import math

import torch
import triton
import triton.language as tl

from pydl.contract.conv import ConvGradBias, ConvGradWeight

from . import conv_depthwise_weight, conv_tiles, runtime
from .channel_sums import added, runs_of, share_of, tile_at
from .conv_tiles import taps_of
from .elements import as_offset, filled, narrow, operand, pixel, place, read_at, widen
from .split import parts_of, split_of, sum_parts


@triton.jit
def conv_grad_weight_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    part_ptr,  # (splits, F, C/G, KD, KH, KW), dense, written
    grad_y_shape,
    grad_y_stride,
    x_shape,
    x_stride,
    pixels,  # N * OD * OH * OW: K
    split_blocks,  # blocks of BLOCK_K pixels a split
    m_channels,  # F/G
    n_channels,  # C/G
    features,  # F
    blocks,  # of the sequence of taps and n_channels: N
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    MERGED: tl.constexpr,
    GRAD_Y_CHANNELS_LAST: tl.constexpr,
    X_CHANNELS_LAST: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    m_blocks = (m_channels + BLOCK_M - 1) // BLOCK_M
    group = program // blocks // m_blocks % (features // m_channels)
    split = program // blocks // m_blocks // (features // m_channels)
    m = program // blocks % m_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    n = as_offset(tl.arange(0, BLOCK_N), WIDE)
    k = tl.arange(0, BLOCK_K)

    y_m = m[None, :] if GRAD_Y_CHANNELS_LAST else m[:, None]
    y_k = k[:, None] if GRAD_Y_CHANNELS_LAST else k[None, :]
    x_k = k[:, None] if X_CHANNELS_LAST else k[None, :]
    x_n = n[None, :] if X_CHANNELS_LAST else n[:, None]
    grad_y_feature = grad_y_ptr + (group * m_channels + y_m) * grad_y_stride[1]
    td, th, tw, channel, in_n = taps_of(program % blocks, x_n, n_channels, KERNEL, BLOCK_N, MERGED)
    x_channel = x_ptr + (group * n_channels + channel) * x_stride[1]

    total = filled([BLOCK_M, BLOCK_N], 0.0, x_ptr)
    for block in range(split_blocks):
        first = (split * split_blocks + block) * BLOCK_K
        image, od, oh, ow = pixel(first + y_k, grad_y_shape[2], grad_y_shape[3], grad_y_shape[4])
        offset = (
            image * grad_y_stride[0]
            + od * grad_y_stride[2]
            + oh * grad_y_stride[3]
            + ow * grad_y_stride[4]
        )
        a = tl.load(
            grad_y_feature + offset, mask=(first + y_k < pixels) & (y_m < m_channels), other=0.0
        )
        if GRAD_Y_CHANNELS_LAST:
            a = tl.trans(a)  # [BLOCK_M, BLOCK_K]
        image, od, oh, ow = pixel(first + x_k, grad_y_shape[2], grad_y_shape[3], grad_y_shape[4])
        d, in_d = read_at(od, td, x_shape[2], STRIDE[0], PADDING[0], DILATION[0])
        h, in_h = read_at(oh, th, x_shape[3], STRIDE[1], PADDING[1], DILATION[1])
        w, in_w = read_at(ow, tw, x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        offset = image * x_stride[0] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
        b = tl.load(
            x_channel + offset, mask=(first + x_k < pixels) & in_d & in_h & in_w & in_n, other=0.0
        )
        if not X_CHANNELS_LAST:
            b = tl.trans(b)  # [BLOCK_K, BLOCK_N]
        total = tl.dot(
            operand(a, INPUT_PRECISION),
            operand(b, INPUT_PRECISION),
            total,
            input_precision=INPUT_PRECISION,
            out_dtype=total.dtype,
        )

    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    td, th, tw, channel, in_n = taps_of(
        program % blocks, n[None, :], n_channels, KERNEL, BLOCK_N, MERGED
    )
    feature = split * features + group * m_channels + m[:, None]
    offset = (feature * n_channels + channel) * TAPS + (td * KERNEL[1] + th) * KERNEL[2] + tw
    tl.store(part_ptr + offset, narrow(total, part_ptr), mask=(m[:, None] < m_channels) & in_n)


@triton.jit
def conv_grad_bias_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    part_ptr,  # (runs, F), dense, written
    shape,
    grad_y_stride,
    pixels,  # N * OD * OH * OW
    columns,
    run_pixels,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    f0, f, run, first, begin, end = share_of(
        tl.program_id(0),
        shape[1],
        pixels,
        columns,
        run_pixels,
        ROWS,
        COLUMNS,
        ROWS_ARE_PIXELS,
        WIDE,
    )
    total = filled([ROWS, COLUMNS], 0.0, grad_y_ptr)
    for tile in range(begin, end):
        n, d, h, w, offset, mask, _, _, _ = tile_at(
            tile,
            f0,
            f,
            first,
            shape,
            pixels,
            columns,
            run_pixels,
            ROWS,
            COLUMNS,
            ROWS_ARE_PIXELS,
            WIDE,
        )
        at = place(n, f, d, h, w, offset, grad_y_stride, DENSE)
        total += widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
    total = added(total, ROWS_ARE_PIXELS)
    tl.store(part_ptr + run * shape[1] + f, narrow(total, part_ptr), mask=f < shape[1])


def conv_grad_weight(call: ConvGradWeight) -> torch.Tensor:
    """grad_weight, contiguous; zeros for an empty batch."""
    grad_y, x, kernel_size, *window, groups = call
    grad_weight = call.results()
    if grad_y.numel() == 0:
        return grad_weight.zero_()
    features, n_channels, *_ = grad_weight.shape
    m_channels, taps = features // groups, math.prod(kernel_size)
    window = runtime.window(kernel_size, *window)
    if conv_tiles.depthwise(n_channels, m_channels):
        return conv_depthwise_weight.grad_weight(grad_y, x, grad_weight, window)
    pixels = grad_y.numel() // features
    last = runtime.channels_last(grad_y), runtime.channels_last(x)
    tile = conv_tiles.product(x.dtype, m_channels, n_channels, n_channels, all(last))
    columns = conv_tiles.tap_blocks(n_channels, taps, tile["BLOCK_N"])
    programs = groups * triton.cdiv(m_channels, tile["BLOCK_M"]) * columns["blocks"]
    splits, split_blocks = split_of(pixels, programs, tile["BLOCK_K"])
    parts = parts_of(grad_weight, splits)
    runtime.launch(
        conv_grad_weight_kernel,
        programs * splits,
        x.device,
        grad_y,
        x,
        parts,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(x.shape),
        runtime.stride(x),
        pixels,
        split_blocks,
        m_channels,
        n_channels,
        features,
        **columns,
        **tile,
        **window,
        GRAD_Y_CHANNELS_LAST=last[0],
        X_CHANNELS_LAST=last[1],
        WIDE=runtime.wide(grad_y, x, parts),
    )
    return sum_parts(parts, grad_weight)


def conv_grad_bias(call: ConvGradBias) -> torch.Tensor:
    """grad_bias (F,); zeros for an empty batch."""
    grad_y, grad_bias = call.grad_y, call.results()
    if grad_y.numel() == 0:
        return grad_bias.zero_()
    last = runtime.channels_last(grad_y)
    parted = runs_of(grad_y, last, 8192 // grad_y.element_size())
    runs, programs = parted.pop("runs"), parted.pop("programs")
    parts = parts_of(grad_bias, runs)
    runtime.launch(
        conv_grad_bias_kernel,
        programs,
        grad_y.device,
        grad_y,
        parts,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        **parted,
        DENSE=runtime.dense(last, grad_y),
        WIDE=runtime.wide(grad_y, parts),
    )
    return sum_parts(parts, grad_bias)
