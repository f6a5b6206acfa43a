"""Max unpooling over D, H, W, and its gradient (definition: csrc/unpool.h).

    y[n, c, o] = x[n, c, i] of the last i in scan order with index[n, c, i] = o, else 0
    grad_x[n, c, i] = grad_y[n, c, index[n, c, i]]

Forward is two kernels. The first enters at each place the largest number of those that name it, by
an atomic maximum of integers, whose result does not depend on their order; the second covers y and
fetches what won each place. So the result repeats bit for bit, where a scatter of the values would
not. The gradient gathers.

On a GPU nothing waits until the positions have been looked at, and nothing is read or written
outside of the maps: a position that is none makes the first element of its plane of y NaN, and its
own of grad_x.

Layouts: x, index and grad_y have any strides; y, the numbers and grad_x are dense, and a program
covers ROWS x COLUMNS elements in the order of its memory (elements.walk).
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from pydl import layout, plan
from pydl.contract.unpool import MaxUnpoolBackward, MaxUnpoolForward, check_positions

from . import runtime
from .elements import pixel, walk

# What a position that is none enters: more than the number of any element.
NOWHERE = tl.constexpr(2**62)


def _check(index: torch.Tensor, size: Sequence[int]) -> None:
    """Raises for a position outside of a plane of this size, where looking does not wait for a
    GPU."""
    if runtime.INTERPRETING and index.device.type == "cpu":
        check_positions(index, size)


@triton.jit
def enter_kernel(
    index_ptr,  # (N, C, D, H, W) int64, any strides
    winner_ptr,  # (N, C, OD, OH, OW) int64, zeros
    shape,
    index_stride,
    winner_shape,
    winner_stride,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, _, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = tl.load(
        index_ptr
        + n * index_stride[0]
        + c * index_stride[1]
        + d * index_stride[2]
        + h * index_stride[3]
        + w * index_stride[4],
        mask=mask,
        other=0,
    )
    beyond, od, oh, ow = pixel(at, winner_shape[2], winner_shape[3], winner_shape[4])
    exists = (at >= 0) & (beyond == 0)
    place = od * winner_stride[2] + oh * winner_stride[3] + ow * winner_stride[4]
    place = n * winner_stride[0] + c * winner_stride[1] + tl.where(exists, place, 0)
    mine = (d.to(tl.int64) * shape[3] + h) * shape[4] + w + 1
    mine = tl.where(exists, mine, NOWHERE)  # [ROWS, COLUMNS]
    tl.atomic_max(winner_ptr + place, mine, mask=mask)


@triton.jit
def fetch_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    winner_ptr,  # (N, C, OD, OH, OW) int64, dense
    y_ptr,  # like winner, dense, written
    shape,
    x_stride,
    y_shape,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, _, _, _, offset, mask = walk(y_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    won = tl.load(winner_ptr + offset, mask=mask, other=0)
    _, d, h, w = pixel(tl.maximum(won - 1, 0), shape[2], shape[3], shape[4])
    named = (won > 0) & (won != NOWHERE)
    value = tl.load(
        x_ptr
        + n * x_stride[0]
        + c * x_stride[1]
        + d * x_stride[2]
        + h * x_stride[3]
        + w * x_stride[4],
        mask=mask & named,
        other=tl.where(won == NOWHERE, float("nan"), 0.0),
    )
    tl.store(y_ptr + offset, value, mask=mask)


def max_unpool_forward(call: MaxUnpoolForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, index, output_size = call
    _check(index, output_size)
    y = call.results()
    if y.numel() == 0:
        return y
    winner = layout.resized(x, output_size, dtype=torch.int64)
    plan.step(torch.zero_, winner)
    tiling = runtime.tile(layout.resized(x, x.shape[2:]))
    wide = runtime.wide(x, index, y)
    runtime.launch(
        enter_kernel,
        runtime.programs(tiling),
        x.device,
        index,
        winner,
        runtime.shape(x.shape),
        runtime.stride(index),
        runtime.shape(y.shape),
        runtime.stride(winner),
        **tiling,
        WIDE=wide,
    )
    tiling = runtime.tile(y)
    runtime.launch(
        fetch_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        winner,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        runtime.shape(y.shape),
        **tiling,
        WIDE=wide,
    )
    return y


@triton.jit
def gather_kernel(
    grad_y_ptr,  # (N, C, OD, OH, OW), any strides
    index_ptr,  # (N, C, D, H, W) int64, any strides
    grad_x_ptr,  # like index, dense, written
    y_shape,
    grad_y_stride,
    shape,
    index_stride,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = tl.load(
        index_ptr
        + n * index_stride[0]
        + c * index_stride[1]
        + d * index_stride[2]
        + h * index_stride[3]
        + w * index_stride[4],
        mask=mask,
        other=0,
    )
    beyond, od, oh, ow = pixel(at, y_shape[2], y_shape[3], y_shape[4])
    exists = (at >= 0) & (beyond == 0)
    value = tl.load(
        grad_y_ptr
        + n * grad_y_stride[0]
        + c * grad_y_stride[1]
        + od * grad_y_stride[2]
        + oh * grad_y_stride[3]
        + ow * grad_y_stride[4],
        mask=mask & exists,
        other=tl.where(exists, 0.0, float("nan")),
    )
    tl.store(grad_x_ptr + offset, value, mask=mask)


def max_unpool_backward(call: MaxUnpoolBackward) -> torch.Tensor:
    """grad_x, contiguous."""
    grad_y, index = call
    _check(index, grad_y.shape[2:])
    # The kernel writes it as index lies: with a layout of its own it would not fit the registers.
    grad_x = layout.resized(index, index.shape[2:], dtype=grad_y.dtype)
    if grad_x.numel() == 0:
        return grad_x
    wide = runtime.wide(grad_y, index, grad_x)
    # Four elements a thread with 64-bit offsets, of which eight do not fit the registers.
    tiling = runtime.tile(grad_x, 512 if wide else 1024)
    runtime.launch(
        gather_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        index,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.shape(index.shape),
        runtime.stride(index),
        **tiling,
        WIDE=wide,
    )
    return layout.contiguous(grad_x)
