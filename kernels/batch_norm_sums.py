"""The sums over a channel that batch normalisation makes: mean and var of its values, sum_g and
sum_gx of its gradient (definition: csrc/batch_norm.h).

A program covers a run of pixels, a tile at a time: of 32 channels where those are neighbours in
memory, else of one. Each lane adds up what comes to it, and the lanes are added at the run's end; a
second kernel joins the runs in ascending order. The moments of a run are made about the mean of its
first tile, from which its own mean differs by no more than a few deviations, and join by Chan's
formula; nothing is a difference of large sums. Where there is one run nothing is to be joined, and
the first kernel does what is left to the second. Where there is one tile, of small planes, it is
read once: the mean first and then the squares about it, which are in registers.

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
from .channel_sums import added, runs_of, share_of, tile_at
from .elements import filled, inline, narrow, number, place, widen

Pair = tuple[torch.Tensor, torch.Tensor]


@inline
def inverse_deviation(var, eps):
    return tl.math.rsqrt(var + number(eps, var))


@inline
def left(grad_y, bit, ACTIVATION: tl.constexpr, slope):
    """g: grad_y where its bit is set, else what the activation leaves of it."""
    if ACTIVATION == "leaky_relu":
        return tl.where(bit != 0, grad_y, grad_y * number(slope, grad_y))
    else:
        return tl.where(bit != 0, grad_y, 0.0)


@inline
def unpacked(packed, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The bits [ROWS, COLUMNS] of bytes [ROWS, COLUMNS / 8]: each byte is loaded once."""
    bits = packed.to(tl.int32)[:, :, None] >> tl.arange(0, 8)[None, None, :]
    return tl.reshape(bits & 1, [ROWS, COLUMNS])


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
    columns,
    run_pixels,
    momentum: tl.float64,
    CUMULATIVE: tl.constexpr,
    ONE_RUN: tl.constexpr,
    ONE_TILE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    c0, c, run, first, begin, end = share_of(
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
    n, d, h, w, offset, mask, _, _, _ = tile_at(
        begin,
        c0,
        c,
        first,
        shape,
        pixels,
        columns,
        run_pixels,
        ROWS,
        COLUMNS,
        ROWS_ARE_PIXELS,
        WIDE,
        ONE_TILE,
    )
    at = place(n, c, d, h, w, offset, x_stride, DENSE)
    sample = widen(tl.load(x_ptr + at, mask=mask, other=0.0))
    count = filled([1, 1], 0.0, mean_ptr) + tl.minimum(run_pixels, pixels - first)
    if ONE_TILE:
        mean = added(sample, ROWS_ARE_PIXELS) / count
        distance = tl.where(mask, sample - mean, 0.0)
        squares = added(distance * distance, ROWS_ARE_PIXELS)
    else:
        taken = tl.where(mask, filled([ROWS, COLUMNS], 1.0, mean_ptr), 0.0)
        about = added(sample, ROWS_ARE_PIXELS) / tl.maximum(added(taken, ROWS_ARE_PIXELS), 1)
        about = tl.where(about - about == 0, about, 0.0)  # finite
        # As a value of x, so that what is masked is nothing and not a rounding.
        about = widen(narrow(about, x_ptr))
        sums = filled([ROWS, COLUMNS], 0.0, mean_ptr)
        squares = filled([ROWS, COLUMNS], 0.0, mean_ptr)
        for tile in range(begin, end):
            n, d, h, w, offset, mask, _, _, _ = tile_at(
                tile,
                c0,
                c,
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
            at = place(n, c, d, h, w, offset, x_stride, DENSE)
            x = tl.load(x_ptr + at, mask=mask, other=narrow(about, x_ptr))
            distance = widen(x) - about
            sums += distance
            squares += distance * distance
        distance = added(sums, ROWS_ARE_PIXELS) / count
        squares = added(squares, ROWS_ARE_PIXELS) - distance * distance * count
        # Where they are nearly equal, the difference may come out below zero; a NaN stays one.
        squares = tl.where(squares < 0, 0.0, squares)
        mean = about + distance
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
    columns,
    run_pixels,
    bytes,
    eps: tl.float64,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    ROWS_ARE_PIXELS: tl.constexpr,
    DENSE: tl.constexpr,
    ONE_RUN: tl.constexpr,
    ONE_TILE: tl.constexpr,
    WIDE: tl.constexpr,
):
    c0, c, run, first, begin, end = share_of(
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
    if ONE_TILE:
        begin, end = 0, 1
    mean = tl.load(mean_ptr + c, mask=c < shape[1], other=0.0)
    sum_g = filled([ROWS, COLUMNS], 0.0, g_ptr)
    sum_gx = filled([ROWS, COLUMNS], 0.0, g_ptr)
    for tile in range(begin, end):
        n, d, h, w, offset, mask, row, byte, there = tile_at(
            tile,
            c0,
            c,
            first,
            shape,
            pixels,
            columns,
            run_pixels,
            ROWS,
            COLUMNS,
            ROWS_ARE_PIXELS,
            WIDE,
            ONE_TILE,
        )
        at = place(n, c, d, h, w, offset, x_stride, DENSE)
        x = widen(tl.load(x_ptr + at, mask=mask, other=0.0))
        at = place(n, c, d, h, w, offset, grad_y_stride, DENSE)
        g = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
        if ACTIVATION != "none":
            bytes_at = byte + tl.arange(0, COLUMNS // 8)[None, :]
            inside = there & (bytes_at < bytes)
            packed = tl.load(mask_ptr + row * bytes + bytes_at, mask=inside, other=0)
            g = left(g, unpacked(packed, ROWS, COLUMNS), ACTIVATION, slope)
        sum_g += g
        # Beyond the map x is 0 and the mean may be infinite.
        sum_gx += tl.where(mask, g * (x - mean), 0.0)
    sum_g, sum_gx = added(sum_g, ROWS_ARE_PIXELS), added(sum_gx, ROWS_ARE_PIXELS)
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


def _at_once(parted: dict[str, int | bool]) -> dict[str, int | bool]:
    """Whether the tile of a program is all of its channel; then so few warps that a lane has 32
    elements, for what lanes exchange would be most of the work."""
    rows, columns = parted["ROWS"], parted["COLUMNS"]
    images = parted["pixels"] // parted["columns"]
    once = not parted["ROWS_ARE_PIXELS"] and images <= rows and parted["columns"] <= columns
    warps = max(1, min(4, rows * columns // 1024))
    return {"ONE_TILE": once, "num_warps": warps if once else 4}


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
    parted = runs_of(x, mask_rows_are_pixels(x), 8192 // x.element_size())
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
        **_at_once(parted),
        DENSE=runtime.dense(parted["ROWS_ARE_PIXELS"], x),
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
    parted = runs_of(x, mask_rows_are_pixels(x), 4096 // x.element_size())
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
        DENSE=runtime.dense(parted["ROWS_ARE_PIXELS"], x, grad_y),
        ONE_RUN=runs == 1,
        **_at_once(parted),
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
