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
from .elements import as_offset, inline, pixel, place, walk

# What a position that is none enters: more than the number of any element.
NOWHERE = tl.constexpr(2**31 - 1)
NOWHERE_WIDE = tl.constexpr(2**62)


def _check(index: torch.Tensor, size: Sequence[int]) -> None:
    """Raises for a position outside of a plane of this size, where looking does not wait for a
    GPU."""
    if runtime.INTERPRETING and index.device.type == "cpu":
        check_positions(index, size)


@inline
def nowhere(WIDE: tl.constexpr):
    return NOWHERE_WIDE if WIDE else NOWHERE


@inline
def place_in(n, c, position, shape, stride, CHANNELS_LAST: tl.constexpr, DENSE: tl.constexpr):
    """Where the position-th element of a plane lies in a map; and whether there is one. In a dense
    map without taking the position apart."""
    count = tl.cast(shape[2], position.dtype) * shape[3] * shape[4]
    exists = (position >= 0) & (position < count)
    position = tl.where(exists, position, 0)
    if DENSE:
        inside = tl.cast(position, n.dtype)
        count = tl.cast(shape[2], n.dtype) * shape[3] * shape[4]
        if CHANNELS_LAST:
            return (n * count + inside) * shape[1] + c, exists
        else:
            return (n * shape[1] + c) * count + inside, exists
    else:
        _, d, h, w = pixel(position, shape[2], shape[3], shape[4])
        return place(n, c, d, h, w, 0, stride, False), exists


@triton.jit
def enter_kernel(
    index_ptr,  # (N, C, D, H, W) int64, any strides
    winner_ptr,  # (N, C, OD, OH, OW) int32, int64 with 64-bit offsets, dense, zeros
    shape,
    index_stride,
    winner_shape,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = place(n, c, d, h, w, offset, index_stride, DENSE)
    position = tl.load(index_ptr + at, mask=mask, other=0)
    to, exists = place_in(n, c, position, winner_shape, winner_shape, CHANNELS_LAST, True)
    mine = (as_offset(d, WIDE) * shape[3] + h) * shape[4] + w + 1
    mine = tl.where(exists, mine, nowhere(WIDE))  # [ROWS, COLUMNS]
    # Only the largest counts, and it is read by a launch of its own: nothing waits for another.
    tl.atomic_max(winner_ptr + to, mine, mask=mask, sem="relaxed")


@triton.jit
def fetch_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    winner_ptr,  # (N, C, OD, OH, OW), dense
    y_ptr,  # like winner, dense, written
    shape,
    x_stride,
    y_shape,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, _, _, _, offset, mask = walk(y_shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    won = tl.load(winner_ptr + offset, mask=mask, other=0)
    none = won == nowhere(WIDE)
    at, named = place_in(n, c, won - 1, shape, x_stride, CHANNELS_LAST, DENSE)
    value = tl.load(
        x_ptr + at, mask=mask & named & (none == 0), other=tl.where(none, float("nan"), 0.0)
    )
    tl.store(y_ptr + offset, value, mask=mask)


def max_unpool_forward(call: MaxUnpoolForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, index, output_size = call
    _check(index, output_size)
    y = call.results()
    if y.numel() == 0:
        return y
    wide = runtime.wide(x, index, y)
    winner = layout.resized(x, output_size, dtype=torch.int64 if wide else torch.int32)
    plan.step(torch.zero_, winner)
    tiling = runtime.tile(y, size=x.shape[2:])
    runtime.launch(
        enter_kernel,
        runtime.programs(tiling),
        x.device,
        index,
        winner,
        runtime.shape(x.shape),
        runtime.stride(index),
        runtime.shape(y.shape),
        **tiling,
        DENSE=runtime.dense(tiling["CHANNELS_LAST"], index),
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
        DENSE=runtime.dense(tiling["CHANNELS_LAST"], x),
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
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = place(n, c, d, h, w, offset, index_stride, DENSE)
    position = tl.load(index_ptr + at, mask=mask, other=0)
    at, exists = place_in(n, c, position, y_shape, grad_y_stride, CHANNELS_LAST, DENSE)
    value = tl.load(grad_y_ptr + at, mask=mask & exists, other=tl.where(exists, 0.0, float("nan")))
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
        DENSE=runtime.dense(tiling["CHANNELS_LAST"], grad_y, index),
        WIDE=wide,
    )
    return layout.contiguous(grad_x)
