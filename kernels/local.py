"""Locally connected layer, a convolution whose every position has weights of its own, and its
gradients (definition: csrc/local.h).

    forward      y[n, f, o]      = bias[f, o] + sum over c, t of
                                   x[n, c, o * stride - padding + t * dilation]
                                   * weight[f, c * taps + t, o]
    grad input   grad_x[n, c, i] = sum over f, and the t and o with o * stride - padding +
                                   t * dilation = i, of grad_y[n, f, o] * weight[f, c * taps + t, o]
    grad weight  grad_w[f, c * taps + t, o] = sum over n of grad_y[n, f, o] * x[n, c, at(o, t)]

A program covers a box of three axes, with the pixels, which are neighbours in the weight's memory,
along the lanes: BLOCK_F filters x BLOCK_N images x BLOCK_P pixels of y, BLOCK_F channels x BLOCK_N
images x BLOCK_P pixels of grad_x, BLOCK_F filters x BLOCK_N rows (c, t) x BLOCK_P pixels of grad_w.
It reads a slice of each operand that lacks one axis of the box and adds up their product, so a
weight is loaded once for BLOCK_N images and an element of x once for BLOCK_F filters.

It cannot avoid reading (grad weight: writing) the weight once, F * C * taps * OD * OH * OW elements
of which each serves N products and no others: bytes that far outweigh x and y. The programs that
share weights are neighbours, so that they read them from the L2 cache when the images are more than
BLOCK_N. An element of grad_x visits only the taps that read it (conv_tiles.residue_class).

Why this form: no two positions share a weight, so there is no product of matrices to give the
tensor cores; BLOCK_F * BLOCK_N products for BLOCK_F + BLOCK_N loads keep the units ahead of the L1
cache. Sums are in float32 (float64 for float64), one element's in one program and in order.
"""

import math

import torch
import triton
import triton.language as tl

from pydl.contract.local import LocalForward, LocalGradInput, LocalGradWeight

from . import conv_tiles, runtime
from .conv_tiles import residue_class
from .elements import as_offset, filled, narrow, pixel, read_at, widen

# (BLOCK_F, BLOCK_N, BLOCK_P, num_warps) by the bytes of an element.
TILES = {2: (8, 8, 64, 4), 4: (8, 8, 64, 4), 8: (4, 8, 64, 4)}


@triton.jit
def local_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    weight_ptr,  # (F, C * taps, OD, OH, OW), any strides
    bias_ptr,  # (F, OD, OH, OW), any strides, or None
    y_ptr,  # (N, F, OD, OH, OW), dense, contiguous, written
    x_shape,
    x_stride,
    weight_stride,
    bias_stride,
    y_shape,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    pixels = as_offset(y_shape[2], WIDE) * y_shape[3] * y_shape[4]
    n_blocks = (y_shape[0] + BLOCK_N - 1) // BLOCK_N
    f_blocks = (y_shape[1] + BLOCK_F - 1) // BLOCK_F
    n = program % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)[None, :, None]
    f = program // n_blocks % f_blocks * BLOCK_F + tl.arange(0, BLOCK_F)[:, None, None]
    p = program // n_blocks // f_blocks * BLOCK_P + tl.arange(0, BLOCK_P)[None, None, :]
    _, od, oh, ow = pixel(p, y_shape[2], y_shape[3], y_shape[4])
    in_n = (n < y_shape[0]) & (p < pixels)
    in_f = (f < y_shape[1]) & (p < pixels)
    image = x_ptr + n * x_stride[0]
    filter = weight_ptr + f * weight_stride[0]
    filter += od * weight_stride[2] + oh * weight_stride[3] + ow * weight_stride[4]
    total = filled([BLOCK_F, BLOCK_N, BLOCK_P], 0.0, x_ptr)
    for step in range(as_offset(x_shape[1], WIDE) * TAPS):
        row = as_offset(step, WIDE)
        tap = row % TAPS
        td = tap // (KERNEL[1] * KERNEL[2])
        th = tap // KERNEL[2] % KERNEL[1]
        tw = tap % KERNEL[2]
        d, in_d = read_at(od, td, x_shape[2], STRIDE[0], PADDING[0], DILATION[0])
        h, in_h = read_at(oh, th, x_shape[3], STRIDE[1], PADDING[1], DILATION[1])
        w, in_w = read_at(ow, tw, x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
        at = row // TAPS * x_stride[1] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
        x = tl.load(image + at, mask=in_n & in_d & in_h & in_w, other=0.0)  # [1, BLOCK_N, BLOCK_P]
        weight = tl.load(filter + row * weight_stride[1], mask=in_f, other=0.0)
        total += widen(weight) * widen(x)  # [BLOCK_F, BLOCK_N, BLOCK_P]
    if bias_ptr is not None:
        at = f * bias_stride[0] + od * bias_stride[1] + oh * bias_stride[2] + ow * bias_stride[3]
        total += widen(tl.load(bias_ptr + at, mask=in_f, other=0.0))
    tl.store(y_ptr + (n * y_shape[1] + f) * pixels + p, narrow(total, y_ptr), mask=in_n & in_f)


def local_forward(call: LocalForward) -> torch.Tensor:
    """y, contiguous."""
    x, weight, bias, kernel_size, stride, padding, dilation = call
    y = call.results()
    shape = y.shape
    if y.numel() == 0:
        return y
    tile, programs = _tile(x.dtype, shape[1], shape[0], math.prod(shape[2:]))
    axes = (0, 0, 0, 0)
    if bias is not None:
        axes = (bias.stride(0), *runtime.spread(bias.stride()[1:], 0))
    runtime.launch(
        local_forward_kernel,
        programs,
        x.device,
        x,
        weight,
        bias,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.stride(weight),
        axes,
        runtime.shape(shape),
        **runtime.window(kernel_size, stride, padding, dilation),
        **tile,
        WIDE=runtime.wide(x, weight, y),
    )
    return y


def _tile(dtype: torch.dtype, f: int, n: int, p: int) -> tuple[dict[str, int], int]:
    """The box of a program, no larger than the result (f, n, p), and the number of programs."""
    *blocks, warps = TILES[dtype.itemsize]
    sizes = (f, n, p)
    blocks = [
        min(block, runtime.power_of_two(size)) for block, size in zip(blocks, sizes, strict=True)
    ]
    programs = math.prod(
        triton.cdiv(size, block) for block, size in zip(blocks, sizes, strict=True)
    )
    names = ("BLOCK_F", "BLOCK_N", "BLOCK_P")
    return {**dict(zip(names, blocks, strict=True)), "num_warps": warps}, programs


@triton.jit
def local_grad_input_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    weight_ptr,  # (F, C * taps, OD, OH, OW), any strides
    grad_x_ptr,  # (N, C, D, H, W), dense, contiguous, written
    y_shape,
    grad_y_stride,
    weight_stride,
    x_shape,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,
    TAPS: tl.constexpr,  # the most taps of a class, each axis
    BLOCK_F: tl.constexpr,  # of channels
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    KERNEL_TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    TRIPS: tl.constexpr = TAPS[0] * TAPS[1] * TAPS[2]
    pixels = as_offset(x_shape[2], WIDE) * x_shape[3] * x_shape[4]
    n_blocks = (x_shape[0] + BLOCK_N - 1) // BLOCK_N
    c_blocks = (x_shape[1] + BLOCK_F - 1) // BLOCK_F
    n = program % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)[None, :, None]
    c = program // n_blocks % c_blocks * BLOCK_F + tl.arange(0, BLOCK_F)[:, None, None]
    p = program // n_blocks // c_blocks * BLOCK_P + tl.arange(0, BLOCK_P)[None, None, :]
    _, d, h, w = pixel(p, x_shape[2], x_shape[3], x_shape[4])
    in_n = (n < x_shape[0]) & (p < pixels)
    in_c = (c < x_shape[1]) & (p < pixels)
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
    total = filled([BLOCK_F, BLOCK_N, BLOCK_P], 0.0, grad_y_ptr)
    for step in range(as_offset(y_shape[1], WIDE) * TRIPS):
        row = as_offset(step, WIDE)
        f = row // TRIPS
        jd = row % TRIPS // (TAPS[1] * TAPS[2])
        jh = row // TAPS[2] % TAPS[1]
        jw = row % TAPS[2]
        od = start_d - jd * (DILATION[0] * TAP_STEP[0] // STRIDE[0])
        oh = start_h - jh * (DILATION[1] * TAP_STEP[1] // STRIDE[1])
        ow = start_w - jw * (DILATION[2] * TAP_STEP[2] // STRIDE[2])
        read = (od >= 0) & (od < y_shape[2])
        read = read & (oh >= 0) & (oh < y_shape[3])
        read = read & (ow >= 0) & (ow < y_shape[4])
        if STRIDE[0] > 1:
            read = read & (jd < taps_d)
        if STRIDE[1] > 1:
            read = read & (jh < taps_h)
        if STRIDE[2] > 1:
            read = read & (jw < taps_w)
        at = f * grad_y_stride[1]
        at += od * grad_y_stride[2] + oh * grad_y_stride[3] + ow * grad_y_stride[4]
        grad_y = tl.load(image + at, mask=in_n & read, other=0.0)  # [1, BLOCK_N, BLOCK_P]
        tap = (tap_d + jd * TAP_STEP[0]) * KERNEL[1] + tap_h + jh * TAP_STEP[1]
        tap = tap * KERNEL[2] + tap_w + jw * TAP_STEP[2]
        at = f * weight_stride[0] + (c * KERNEL_TAPS + tap) * weight_stride[1]
        at += od * weight_stride[2] + oh * weight_stride[3] + ow * weight_stride[4]
        weight = tl.load(weight_ptr + at, mask=in_c & read, other=0.0)
        total += widen(weight) * widen(grad_y)  # [BLOCK_F, BLOCK_N, BLOCK_P]
    tl.store(
        grad_x_ptr + (n * x_shape[1] + c) * pixels + p,
        narrow(total, grad_x_ptr),
        mask=in_n & in_c,
    )


def local_grad_input(call: LocalGradInput) -> torch.Tensor:
    """grad_x, contiguous."""
    grad_y, weight, input_size, kernel_size, stride, padding, dilation = call
    grad_x = call.results()
    shape = grad_x.shape
    if grad_x.numel() == 0:
        return grad_x
    tile, programs = _tile(grad_y.dtype, shape[1], shape[0], math.prod(input_size))
    window = runtime.window(kernel_size, stride, padding, dilation)
    steps = conv_tiles.tap_steps(stride, dilation)
    runtime.launch(
        local_grad_input_kernel,
        programs,
        grad_y.device,
        grad_y,
        weight,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.stride(weight),
        runtime.shape(shape),
        **window,
        TAP_STEP=steps,
        TAPS=tuple(triton.cdiv(k, s) for k, s in zip(window["KERNEL"], steps, strict=True)),
        **tile,
        WIDE=runtime.wide(grad_y, weight, grad_x),
    )
    return grad_x


@triton.jit
def local_grad_weight_kernel(
    grad_y_ptr,  # (N, F, OD, OH, OW), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    grad_weight_ptr,  # (F, C * taps, OD, OH, OW), dense, contiguous, written
    y_shape,
    grad_y_stride,
    x_shape,
    x_stride,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_N: tl.constexpr,  # of rows (c, t)
    BLOCK_P: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    TAPS: tl.constexpr = KERNEL[0] * KERNEL[1] * KERNEL[2]
    rows = as_offset(x_shape[1], WIDE) * TAPS
    pixels = as_offset(y_shape[2], WIDE) * y_shape[3] * y_shape[4]
    r_blocks = (rows + BLOCK_N - 1) // BLOCK_N
    f_blocks = (y_shape[1] + BLOCK_F - 1) // BLOCK_F
    row = program % r_blocks * BLOCK_N + tl.arange(0, BLOCK_N)[None, :, None]
    f = program // r_blocks % f_blocks * BLOCK_F + tl.arange(0, BLOCK_F)[:, None, None]
    p = program // r_blocks // f_blocks * BLOCK_P + tl.arange(0, BLOCK_P)[None, None, :]
    _, od, oh, ow = pixel(p, y_shape[2], y_shape[3], y_shape[4])
    tap = row % TAPS
    td = tap // (KERNEL[1] * KERNEL[2])
    th = tap // KERNEL[2] % KERNEL[1]
    tw = tap % KERNEL[2]
    d, in_d = read_at(od, td, x_shape[2], STRIDE[0], PADDING[0], DILATION[0])
    h, in_h = read_at(oh, th, x_shape[3], STRIDE[1], PADDING[1], DILATION[1])
    w, in_w = read_at(ow, tw, x_shape[4], STRIDE[2], PADDING[2], DILATION[2])
    in_f = (f < y_shape[1]) & (p < pixels)
    in_row = (row < rows) & (p < pixels)
    read = in_row & in_d & in_h & in_w
    grad_y_at = f * grad_y_stride[1]
    grad_y_at += od * grad_y_stride[2] + oh * grad_y_stride[3] + ow * grad_y_stride[4]
    x_at = row // TAPS * x_stride[1] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
    total = filled([BLOCK_F, BLOCK_N, BLOCK_P], 0.0, x_ptr)
    for step in range(y_shape[0]):
        n = as_offset(step, WIDE)
        grad_y = tl.load(grad_y_ptr + n * grad_y_stride[0] + grad_y_at, mask=in_f, other=0.0)
        x = tl.load(x_ptr + n * x_stride[0] + x_at, mask=read, other=0.0)
        total += widen(grad_y) * widen(x)  # [BLOCK_F, BLOCK_N, BLOCK_P]
    tl.store(
        grad_weight_ptr + (f * rows + row) * pixels + p,
        narrow(total, grad_weight_ptr),
        mask=in_f & in_row,
    )


def local_grad_weight(call: LocalGradWeight) -> torch.Tensor:
    """grad_weight (F, C * taps, *out), contiguous; zeros for an empty batch."""
    grad_y, x, kernel_size, stride, padding, dilation = call
    grad_weight = call.results()
    features, rows, *spatial = grad_weight.shape
    if grad_y.numel() == 0 or rows == 0:
        return grad_weight.zero_()
    tile, programs = _tile(x.dtype, features, rows, math.prod(spatial))
    runtime.launch(
        local_grad_weight_kernel,
        programs,
        x.device,
        grad_y,
        x,
        grad_weight,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(x.shape),
        runtime.stride(x),
        **runtime.window(kernel_size, stride, padding, dilation),
        **tile,
        WIDE=runtime.wide(grad_y, x, grad_weight),
        maxnreg=runtime.ALL_REGISTERS,
    )
    return grad_weight
