"""Batch normalisation with residual and activation, and its gradient (definition:
csrc/batch_norm.h).

    forward  y      = activation((x - mean) / sqrt(var + eps) * weight + bias + residual), a bit an
                      element of what the activation passes
    backward grad_x = weight / sqrt(var + eps) * (g - sum_g / P - xhat * sum_gx / P)

mean, var and the sums are made by batch_norm_sums.py.

Layouts: x, residual and grad_y have any strides; what is written is dense. A program covers ROWS x
COLUMNS elements of what it writes in the order of its memory (elements.walk); its rows are the
mask's, whose bytes it packs from the tile in registers.

Least traffic: x (and residual) in, y and the bits out for forward; grad_y, x and the bits in and
grad_x (and grad_residual) out for backward. With the sums x is read twice either way: that is what
a normalisation costs that does not fit on chip, and L2 gives the second read where the map is
small.
"""

import math

import torch
import triton
import triton.language as tl

from pydl.contract.batch_norm import (
    BatchNormApply,
    BatchNormBackward,
    BatchNormForward,
    BatchNormGradInput,
    BatchNormGradSums,
    BatchNormStats,
    BatchNormTrain,
    counted,
    mask_rows_are_pixels,
    room,
)

from . import runtime
from .batch_norm_sums import (
    Pair,
    batch_norm_grad_sums,
    batch_norm_stats,
    inverse_deviation,
    left,
    moments,
    unpacked,
)
from .bias_act import activate
from .elements import as_offset, filled, inline, narrow, place, walk, widen


@inline
def bytes_of(rows, columns, bytes, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """The row and column of the bytes [ROWS, COLUMNS / 8] that hold a program's bits, and which
    there are."""
    program = as_offset(tl.program_id(0), WIDE)
    blocks = (columns + COLUMNS - 1) // COLUMNS
    row = (program // blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    byte = (program % blocks) * (COLUMNS // 8) + tl.arange(0, COLUMNS // 8)[None, :]
    return row, byte, (row < rows) & (byte < bytes)


@triton.jit
def batch_norm_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    mean_ptr,  # (C,)
    var_ptr,  # (C,)
    weight_ptr,  # (C,) or None
    bias_ptr,  # (C,) or None
    residual_ptr,  # like x, any strides, or None
    y_ptr,  # (N, C, D, H, W), dense, written
    mask_ptr,  # the mask, written, or None
    shape,
    x_stride,
    residual_stride,
    rows,
    columns,
    bytes,
    eps: tl.float64,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = place(n, c, d, h, w, offset, x_stride, DENSE)
    x = widen(tl.load(x_ptr + at, mask=mask, other=0.0))  # [ROWS, COLUMNS]
    real = c < shape[1]
    scale = inverse_deviation(tl.load(var_ptr + c, mask=real, other=1.0), eps)
    if weight_ptr is not None:
        scale *= tl.load(weight_ptr + c, mask=real, other=0.0)
    z = (x - tl.load(mean_ptr + c, mask=real, other=0.0)) * scale
    if bias_ptr is not None:
        z += tl.load(bias_ptr + c, mask=real, other=0.0)
    if residual_ptr is not None:
        at = place(n, c, d, h, w, offset, residual_stride, DENSE)
        z += widen(tl.load(residual_ptr + at, mask=mask, other=0.0))
    tl.store(y_ptr + offset, narrow(activate(z, ACTIVATION, slope), y_ptr), mask=mask)
    if mask_ptr is not None:
        passes = z > 0 if ACTIVATION == "leaky_relu" else (z <= 0) == 0
        flags = (passes & mask).to(tl.int32)
        places = tl.reshape(flags, [ROWS, COLUMNS // 8, 8]) << tl.arange(0, 8)[None, None, :]
        packed = tl.sum(places, 2)  # [ROWS, COLUMNS / 8]
        row, byte, inside = bytes_of(rows, columns, bytes, ROWS, COLUMNS, WIDE)
        tl.store(mask_ptr + row * bytes + byte, packed.to(tl.uint8), mask=inside)


@triton.jit
def batch_norm_grad_input_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # like grad_y, any strides
    mean_ptr,  # (C,)
    var_ptr,  # (C,)
    weight_ptr,  # (C,) or None
    mask_ptr,  # the mask, or None
    g_ptr,  # (C,): sum_g, or None
    gx_ptr,  # (C,): sum_gx, or None
    grad_x_ptr,  # like grad_y, dense, written
    grad_residual_ptr,  # like grad_x, written, or None
    shape,
    grad_y_stride,
    x_stride,
    rows,
    columns,
    bytes,
    values,  # of a channel, in all processes
    eps: tl.float64,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = place(n, c, d, h, w, offset, grad_y_stride, DENSE)
    grad_y = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))  # [ROWS, COLUMNS]
    g = grad_y
    if ACTIVATION != "none":
        row, byte, inside = bytes_of(rows, columns, bytes, ROWS, COLUMNS, WIDE)
        packed = tl.load(mask_ptr + row * bytes + byte, mask=inside, other=0)
        g = left(grad_y, unpacked(packed, ROWS, COLUMNS), ACTIVATION, slope)
    real = c < shape[1]
    inverse = inverse_deviation(tl.load(var_ptr + c, mask=real, other=1.0), eps)
    scale = inverse
    if weight_ptr is not None:
        scale *= tl.load(weight_ptr + c, mask=real, other=0.0)
    grad_x = g
    if g_ptr is not None:
        at = place(n, c, d, h, w, offset, x_stride, DENSE)
        x = widen(tl.load(x_ptr + at, mask=mask, other=0.0))
        x -= tl.load(mean_ptr + c, mask=real, other=0.0)
        share = 1.0 / (filled([1, 1], 0.0, g_ptr) + values)
        level = tl.load(g_ptr + c, mask=real, other=0.0) * share
        tilt = tl.load(gx_ptr + c, mask=real, other=0.0) * share * inverse
        grad_x = g - level - x * tilt
    tl.store(grad_x_ptr + offset, narrow(grad_x * scale, grad_x_ptr), mask=mask)
    if grad_residual_ptr is not None:
        tl.store(grad_residual_ptr + offset, narrow(g, grad_residual_ptr), mask=mask)


def _tile(y: torch.Tensor) -> dict[str, int | bool]:
    """runtime.tile with rows that are the mask's and whole bytes of it; of twice as many elements
    where rows are short planes, each with the parameters of another channel."""
    last = mask_rows_are_pixels(y)
    columns = y.shape[1] if last else math.prod(y.shape[2:])
    rows = y.numel() // columns
    elements = 2048 if not last and columns <= 64 and y.element_size() <= 4 else 1024
    wide = max(runtime.block_of(columns, elements), 8)
    return {
        "rows": rows,
        "columns": columns,
        "bytes": (columns + 7) // 8,
        "ROWS": min(runtime.power_of_two(rows), elements // wide),
        "COLUMNS": wide,
        "CHANNELS_LAST": last,
    }


def batch_norm_apply(call: BatchNormApply) -> Pair:
    """y, in the layout of ``x``, and the mask of its activation, where it has one that is to be
    kept."""
    y, mask = call.results()
    if y.numel() > 0:
        _apply(call, y, mask)
    return y, mask


def _apply(call: BatchNormApply, y: torch.Tensor, mask: torch.Tensor) -> None:
    x, residual = call.x, call.residual
    kept = call.keep_mask and call.activation != "none"
    tiling = _tile(y)
    runtime.launch(
        batch_norm_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        call.mean,
        call.var,
        call.weight,
        call.bias,
        residual,
        y,
        mask if kept else None,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.stride(x if residual is None else residual),
        **tiling,
        eps=float(call.eps),
        ACTIVATION=call.activation,
        slope=float(call.slope),
        DENSE=runtime.dense(tiling["CHANNELS_LAST"], x, residual),
        WIDE=runtime.wide(x, y, *([] if residual is None else [residual])),
    )


def batch_norm_forward(
    call: BatchNormForward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """y and mask by the statistics of ``x``, and those."""
    x, *rest = call
    mean, var = batch_norm_stats(BatchNormStats(x))
    return *batch_norm_apply(BatchNormApply(x, mean, var, *rest)), mean, var


def batch_norm_train(
    call: BatchNormTrain,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """y and, where they are kept, the mask and the statistics of ``x``, which move running ones."""
    x, weight, bias, residual, *running, momentum, eps, activation, slope, keep = call
    y, mask, mean, var = call.results()
    own_mean, own_var, _ = room(x, kept=(mean, var) if keep else None)
    counted(call.num_batches_tracked, momentum)
    moments(x, own_mean, own_var, running, momentum)
    how = eps, activation, slope, keep
    _apply(BatchNormApply(x, own_mean, own_var, weight, bias, residual, *how), y, mask)
    return y, mask, mean, var


def batch_norm_grad_input(call: BatchNormGradInput) -> Pair:
    """grad_x and, where it is wanted, grad_residual, in the layout of ``x``; no sums: mean and var
    are constants."""
    grad_y, x = call.grad_y, call.x
    grad_x, grad_residual = call.results()
    if x.numel() == 0:
        return grad_x, grad_residual
    tiling = _tile(grad_x)
    runtime.launch(
        batch_norm_grad_input_kernel,
        runtime.programs(tiling),
        x.device,
        grad_y,
        x,
        call.mean,
        call.var,
        call.weight,
        call.mask,
        call.sum_g,
        call.sum_gx,
        grad_x,
        grad_residual if call.wants_residual else None,
        runtime.shape(x.shape),
        runtime.stride(grad_y),
        runtime.stride(x),
        **tiling,
        values=int(call.elements),
        eps=float(call.eps),
        ACTIVATION=call.activation,
        slope=float(call.slope),
        DENSE=runtime.dense(tiling["CHANNELS_LAST"], x, grad_y),
        WIDE=runtime.wide(x, grad_y),
    )
    return grad_x, grad_residual


def batch_norm_backward(
    call: BatchNormBackward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """grad_x, grad_residual and the two sums, where mean and var are those of ``x``."""
    grad_y, x, mean, var, weight, mask, *how, wants_residual = call
    sums = batch_norm_grad_sums(BatchNormGradSums(grad_y, x, mean, var, mask, *how))
    count = max(x.numel() // max(x.shape[1], 1), 1)
    rest = weight, mask, *sums, count, *how, wants_residual
    return *batch_norm_grad_input(BatchNormGradInput(grad_y, x, mean, var, *rest)), *sums
