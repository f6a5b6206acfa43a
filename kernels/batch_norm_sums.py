"""The sums over a channel that batch normalisation makes: mean and var of its values, sum_g and
sum_gx of its gradient (definition: csrc/batch_norm.h).

A program covers CHANNELS channels and a run of pixels, PIXELS at a time, of maps of any strides: 32
channels where they are neighbours in memory, else one, so that loads coalesce either way. A second
kernel joins the runs in ascending order. The moments of a tile are made about its own mean, from
registers, and join by Chan's formula; nothing is a difference of large sums. Where there is one run
nothing is to be joined, and the first kernel does what is left to the second.

In training whichever has the moments of a channel moves its running statistics.

Least traffic: x once for the statistics; grad_y, x and one bit per element for the gradient's sums.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pydl import layout
from pydl.contract.batch_norm import BatchNormGradSums, BatchNormStats, mask_rows_are_pixels

from . import runtime
from .elements import as_offset, filled, inline, narrow, number, pixel, widen
from .split import SPLIT_PIXELS, split_of

Pair = tuple[torch.Tensor, torch.Tensor]


@inline
def inverse_deviation(var, eps):
    return 1.0 / tl.sqrt(var + number(eps, var))


@inline
def passed(grad_y, mask_ptr, row, column, bytes, mask, ACTIVATION: tl.constexpr, slope):
    """g: grad_y where its bit is set, else what the activation leaves of it."""
    if ACTIVATION == "none":
        return grad_y
    else:
        byte = tl.load(mask_ptr + row * bytes + column // 8, mask=mask, other=0).to(tl.int32)
        bit = (byte >> (column % 8).to(tl.int32)) & 1
        if ACTIVATION == "leaky_relu":
            return tl.where(bit != 0, grad_y, grad_y * number(slope, grad_y))
        else:
            return tl.where(bit != 0, grad_y, 0.0)


@inline
def join(count, mean, squares, n, its_mean, its_squares):
    """Moments of two parts as those of both; n is not 0."""
    total = count + n
    share = n / total
    distance = its_mean - mean
    return (
        total,
        mean + distance * share,
        squares + its_squares + distance * distance * share * count,
    )


@inline
def move(running_ptr, c, to, momentum, mask):
    """As PyTorch's lerp, exact at both ends."""
    start = widen(tl.load(running_ptr + c, mask=mask, other=0.0))
    way = to - start
    moved = tl.where(momentum < 0.5, start + momentum * way, to - way * (1.0 - momentum))
    tl.store(running_ptr + c, narrow(moved, running_ptr), mask=mask)


@inline
def train(
    running_mean_ptr,
    running_var_ptr,
    batches_ptr,
    momentum,
    c,
    mean,
    squares,
    count,
    mask,
    CUMULATIVE: tl.constexpr,
):
    """Counts the batch, unless it has been, and moves the running statistics of channels ``c``."""
    if batches_ptr is not None and not CUMULATIVE:
        tl.store(batches_ptr, tl.load(batches_ptr) + 1, mask=tl.program_id(0) == 0)
    if running_mean_ptr is not None:
        by = count * 0.0  # in the shape and dtype of sums
        if CUMULATIVE:
            by = 1.0 / (by + tl.load(batches_ptr))
        else:
            by += number(momentum, count)
        move(running_mean_ptr, c, mean, by, mask)
        move(running_var_ptr, c, squares / (count - 1.0), by, mask)


@inline
def tile_of(channels, CHANNELS: tl.constexpr, WIDE: tl.constexpr):
    """The channels [1, CHANNELS] of a program that adds up, and which run of pixels is its own."""
    program = as_offset(tl.program_id(0), WIDE)
    blocks = (channels + CHANNELS - 1) // CHANNELS
    c = (program % blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return c, program // blocks


@triton.jit
def batch_norm_moments_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    mean_ptr,  # (runs, C), dense, written
    square_ptr,  # (runs, C), dense, written; var where there is one run
    running_mean_ptr,  # (C,), written, or None; and so on, where there is one run
    running_var_ptr,
    batches_ptr,
    shape,
    x_stride,
    pixels,
    run_pixels,
    momentum: tl.float64,
    CUMULATIVE: tl.constexpr,
    ONE_RUN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    c, run = tile_of(shape[1], CHANNELS, WIDE)
    first = run * run_pixels
    last = tl.minimum(first + run_pixels, pixels)
    mean = filled([1, CHANNELS], 0.0, mean_ptr)
    squares = filled([1, CHANNELS], 0.0, mean_ptr)
    count = squares
    for start in range(first, last, PIXELS):
        p = start + tl.arange(0, PIXELS)[:, None]
        n, d, h, w = pixel(p, shape[2], shape[3], shape[4])
        at = n * x_stride[0] + c * x_stride[1] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
        mask = (p < last) & (c < shape[1])
        x = widen(tl.load(x_ptr + at, mask=mask, other=0.0))  # [PIXELS, CHANNELS]
        there = filled([1, CHANNELS], 0.0, mean_ptr) + tl.minimum(last - start, PIXELS)
        its_mean = tl.sum(x, 0)[None, :] / there
        deviation = tl.where(mask, x - its_mean, 0.0)
        own = tl.sum(deviation * deviation, 0)[None, :]
        count, mean, squares = join(count, mean, squares, there, its_mean, own)
    to = run * shape[1] + c
    if ONE_RUN:
        train(
            running_mean_ptr,
            running_var_ptr,
            batches_ptr,
            momentum,
            c,
            mean,
            squares,
            count,
            c < shape[1],
            CUMULATIVE,
        )
        squares = squares / count
    tl.store(mean_ptr + to, mean, mask=c < shape[1])
    tl.store(square_ptr + to, squares, mask=c < shape[1])


@triton.jit
def batch_norm_join_moments_kernel(
    mean_part_ptr,  # (runs, C), dense
    square_part_ptr,  # (runs, C), dense
    mean_ptr,  # (C,), written
    var_ptr,  # (C,), written
    running_mean_ptr,  # (C,), written, or None
    running_var_ptr,  # (C,), written, or None
    batches_ptr,  # one number, incremented or, where CUMULATIVE, read; or None
    channels,
    runs,
    pixels,
    run_pixels,
    momentum: tl.float64,
    CUMULATIVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mean = filled([BLOCK], 0.0, mean_ptr)
    squares = filled([BLOCK], 0.0, mean_ptr)
    count = squares
    for run in range(runs):
        rest = pixels - tl.cast(run, tl.int64) * run_pixels
        there = filled([BLOCK], 0.0, mean_ptr) + tl.minimum(rest, run_pixels)
        its_mean = tl.load(mean_part_ptr + c, mask=c < channels, other=0.0)
        own = tl.load(square_part_ptr + c, mask=c < channels, other=0.0)
        count, mean, squares = join(count, mean, squares, there, its_mean, own)
        mean_part_ptr += channels
        square_part_ptr += channels
    tl.store(mean_ptr + c, mean, mask=c < channels)
    tl.store(var_ptr + c, squares / count, mask=c < channels)
    train(
        running_mean_ptr,
        running_var_ptr,
        batches_ptr,
        momentum,
        c,
        mean,
        squares,
        count,
        c < channels,
        CUMULATIVE,
    )


@triton.jit
def batch_norm_grad_sums_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # like grad_y, any strides
    mean_ptr,  # (C,)
    var_ptr,  # (C,)
    mask_ptr,  # the mask, or None
    g_ptr,  # (runs, C), dense, written: sum of g
    gx_ptr,  # (runs, C), dense, written: sum of g * (x - mean); of g * xhat where there is one run
    shape,
    grad_y_stride,
    x_stride,
    pixels,
    run_pixels,
    bytes,
    eps: tl.float64,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    ONE_RUN: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDE: tl.constexpr,
):
    c, run = tile_of(shape[1], CHANNELS, WIDE)
    first = run * run_pixels
    last = tl.minimum(first + run_pixels, pixels)
    mean = tl.load(mean_ptr + c, mask=c < shape[1], other=0.0)
    sum_g = filled([1, CHANNELS], 0.0, g_ptr)
    sum_gx = filled([1, CHANNELS], 0.0, g_ptr)
    for start in range(first, last, PIXELS):
        p = start + tl.arange(0, PIXELS)[:, None]
        n, d, h, w = pixel(p, shape[2], shape[3], shape[4])
        mask = (p < last) & (c < shape[1])
        at = n * x_stride[0] + c * x_stride[1] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
        x = widen(tl.load(x_ptr + at, mask=mask, other=0.0))
        at = n * grad_y_stride[0] + c * grad_y_stride[1] + d * grad_y_stride[2]
        at += h * grad_y_stride[3] + w * grad_y_stride[4]
        grad_y = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
        row = p if ROWS_ARE_PIXELS else n * shape[1] + c
        column = c if ROWS_ARE_PIXELS else (d * shape[3] + h) * shape[4] + w
        g = passed(grad_y, mask_ptr, row, column, bytes, mask, ACTIVATION, slope)
        sum_g += tl.sum(g, 0)[None, :]
        # Beyond the map x is 0 and the mean may be infinite.
        sum_gx += tl.sum(tl.where(mask, g * (x - mean), 0.0), 0)[None, :]
    if ONE_RUN:
        var = tl.load(var_ptr + c, mask=c < shape[1], other=1.0)
        sum_gx *= inverse_deviation(var, eps)
    to = run * shape[1] + c
    tl.store(g_ptr + to, sum_g, mask=c < shape[1])
    tl.store(gx_ptr + to, sum_gx, mask=c < shape[1])


@triton.jit
def batch_norm_join_sums_kernel(
    g_part_ptr,  # (runs, C), dense
    gx_part_ptr,  # (runs, C), dense
    var_ptr,  # (C,)
    g_ptr,  # (C,), written
    gx_ptr,  # (C,), written
    channels,
    runs,
    eps: tl.float64,
    BLOCK: tl.constexpr,
):
    c = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    sum_g = filled([BLOCK], 0.0, g_ptr)
    sum_gx = filled([BLOCK], 0.0, g_ptr)
    for _ in range(runs):
        sum_g += tl.load(g_part_ptr + c, mask=c < channels, other=0.0)
        sum_gx += tl.load(gx_part_ptr + c, mask=c < channels, other=0.0)
        g_part_ptr += channels
        gx_part_ptr += channels
    var = tl.load(var_ptr + c, mask=c < channels, other=1.0)
    tl.store(g_ptr + c, sum_g, mask=c < channels)
    tl.store(gx_ptr + c, sum_gx * inverse_deviation(var, eps), mask=c < channels)


def _runs(x: torch.Tensor, elements: int) -> dict[str, int]:
    """How the programs of a sum part the map ``x``, so many elements at a time."""
    channels, pixels = x.shape[1], x.numel() // x.shape[1]
    last = mask_rows_are_pixels(x)
    wide = min(32, runtime.power_of_two(channels)) if last else 1
    block = min(elements // wide, max(16, runtime.power_of_two(pixels)))
    programs = triton.cdiv(channels, wide)
    # At least a few blocks a run, as a sum over pixels has elsewhere.
    block_pixels = max(block, SPLIT_PIXELS)
    runs, run_blocks = split_of(pixels, programs, block_pixels)
    return {
        "runs": runs,
        "programs": programs * runs,
        "pixels": pixels,
        "run_pixels": run_blocks * block_pixels,
        "PIXELS": block,
        "CHANNELS": wide,
    }


def _parts(results: Pair, runs: int) -> Pair:
    """Where what is summed over each run goes: there where the results do if it is one."""
    if runs == 1:
        return results
    shape, plain = (runs, results[0].numel()), torch.contiguous_format
    one, other = (layout.empty(shape, result, layout=plain) for result in results)
    return one, other


def moments(
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    running: Sequence[torch.Tensor | None] = (None, None, None),
    momentum: float | None = 0.0,
) -> None:
    """Writes mean and var, biased, of a map that has elements, and moves running statistics.

    Args:
        running: mean, var, number of batches; None: there is none.
        momentum: None: the mean of all batches.
    """
    parted = _runs(x, 1024)
    runs, programs = parted.pop("runs"), parted.pop("programs")
    parts = _parts((mean, var), runs)
    how = {"momentum": momentum or 0.0, "CUMULATIVE": momentum is None}
    none = (None, None, None), {"momentum": 0.0, "CUMULATIVE": False}
    at_once, named = (running, how) if runs == 1 else none
    runtime.launch(
        batch_norm_moments_kernel,
        programs,
        x.device,
        x,
        *parts,
        *at_once,
        runtime.shape(x.shape),
        runtime.stride(x),
        **parted,
        **named,
        ONE_RUN=runs == 1,
        WIDE=runtime.wide(x),
    )
    if runs == 1:
        return
    block = min(256, runtime.power_of_two(x.shape[1]))
    runtime.launch(
        batch_norm_join_moments_kernel,
        triton.cdiv(x.shape[1], block),
        x.device,
        *parts,
        mean,
        var,
        *running,
        x.shape[1],
        runs,
        parted["pixels"],
        parted["run_pixels"],
        **how,
        BLOCK=block,
    )


def batch_norm_stats(call: BatchNormStats) -> Pair:
    """mean and var, biased; zeros where there is no element."""
    x = call.x
    mean, var = call.results()
    if x.numel() == 0:
        return mean.zero_(), var.zero_()
    moments(x, mean, var)
    return mean, var


def batch_norm_grad_sums(call: BatchNormGradSums) -> Pair:
    """sum_g and sum_gx: the gradients of bias and weight."""
    grad_y, x, mean, var, mask, eps, activation, slope = call
    sum_g, sum_gx = call.results()
    if x.numel() == 0:
        return sum_g.zero_(), sum_gx.zero_()
    # Two maps and their bits: half of what the statistics hold in registers.
    parted = _runs(x, 512)
    runs, programs = parted.pop("runs"), parted.pop("programs")
    parts = _parts((sum_g, sum_gx), runs)
    runtime.launch(
        batch_norm_grad_sums_kernel,
        programs,
        x.device,
        grad_y,
        x,
        mean,
        var,
        mask,
        *parts,
        runtime.shape(x.shape),
        runtime.stride(grad_y),
        runtime.stride(x),
        **parted,
        bytes=1 if mask is None else mask.shape[2],
        ACTIVATION=activation,
        eps=float(eps),
        slope=float(slope),
        ROWS_ARE_PIXELS=mask_rows_are_pixels(x),
        ONE_RUN=runs == 1,
        WIDE=runtime.wide(x, grad_y),
    )
    if runs == 1:
        return sum_g, sum_gx
    block = min(256, runtime.power_of_two(x.shape[1]))
    runtime.launch(
        batch_norm_join_sums_kernel,
        triton.cdiv(x.shape[1], block),
        x.device,
        *parts,
        var,
        sum_g,
        sum_gx,
        x.shape[1],
        runs,
        eps=float(eps),
        BLOCK=block,
    )
    return sum_g, sum_gx
