"""Pyramid pooling over D, H, W, forward (definition: csrc/pool_adaptive.h).

A program covers ROWS planes with the bins of all levels, so that a plane comes from memory once and
to the further levels from the L1 cache: x is read and y (and index) written once. The levels are
unrolled in the compiled kernel, and at each a program's lanes are its planes by the level's bins.
"""

from itertools import pairwise

import torch
import triton
import triton.language as tl

from pydl.contract.pool_adaptive import PyramidPoolForward

from . import pool_adaptive_dense, runtime
from .bins import flat_position, levels_of, reduce_bin, wide
from .elements import as_offset, filled, narrow

# Elements a program covers, planes by bins, at its level of most bins.
PYRAMID_ELEMENTS = 512


@triton.jit
def pyramid_pool_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C * bins), dense, written
    index_ptr,  # like y: uint8 (INDEX "offset") or int64 ("flat"), written; not touched for "none"
    x_shape,
    x_stride,
    planes,
    LEVELS: tl.constexpr,  # three counts of bins a level, one after the other
    COLUMNS: tl.constexpr,  # of each level: its bins, up to a power of two
    FIRST: tl.constexpr,  # of each level: the bins of those before; last, of all
    COUNT: tl.constexpr,  # levels
    MAXIMUM: tl.constexpr,
    INDEX: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    row = program * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    n, c = row // x_shape[1], row % x_shape[1]
    plane = x_ptr + n * x_stride[0] + c * x_stride[1]
    for level in tl.static_range(COUNT):
        column = as_offset(tl.arange(0, COLUMNS[level])[None, :], WIDE)  # [1, COLUMNS]
        ow = column % LEVELS[3 * level + 2]
        oh = column // LEVELS[3 * level + 2] % LEVELS[3 * level + 1]
        od = column // (LEVELS[3 * level + 2] * LEVELS[3 * level + 1])
        mask = (row < planes) & (column < FIRST[level + 1] - FIRST[level])
        start = filled([ROWS, 1], 0.0, x_ptr) + column * 0  # [ROWS, COLUMNS]
        y, tap = reduce_bin(
            plane,
            od,
            oh,
            ow,
            mask,
            x_shape,
            x_stride,
            start,
            LEVELS[3 * level],
            LEVELS[3 * level + 1],
            LEVELS[3 * level + 2],
            MAXIMUM,
        )
        offset = (
            (n * FIRST[COUNT] + FIRST[level]) * x_shape[1]
            + c * (FIRST[level + 1] - FIRST[level])
            + column
        )
        tl.store(y_ptr + offset, narrow(y, y_ptr), mask=mask)
        if INDEX == "offset":
            tl.store(index_ptr + offset, tap.to(tl.uint8), mask=mask)
        if INDEX == "flat":
            position = flat_position(
                tap,
                od,
                oh,
                ow,
                x_shape,
                LEVELS[3 * level],
                LEVELS[3 * level + 1],
                LEVELS[3 * level + 2],
            )
            tl.store(index_ptr + offset, position, mask=mask)


def pyramid_pool_forward(call: PyramidPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """y and, of maxima, the index as :func:`adaptive_max_pool_forward` has it."""
    x, levels, kind, index = call
    y, indices = call.results()
    if y.numel() == 0:
        return y, indices
    last = runtime.channels_last(x)
    if pool_adaptive_dense.serves(x, last, levels, True, y):
        chosen = indices if kind == "max" else None
        pool_adaptive_dense.forward(x, y, chosen, levels, index, last, True)
        return y, indices
    bins, first = levels_of(x.shape[2:], levels)
    columns = [runtime.power_of_two(last - begin) for begin, last in pairwise(first)]
    planes = x.shape[0] * x.shape[1]
    rows = min(max(PYRAMID_ELEMENTS // max(columns), 1), runtime.power_of_two(planes))
    runtime.launch(
        pyramid_pool_forward_kernel,
        triton.cdiv(planes, rows),
        x.device,
        x,
        y,
        indices,
        runtime.shape(x.shape),
        runtime.stride(x),
        planes,
        LEVELS=tuple(bins),
        COLUMNS=tuple(columns),
        FIRST=tuple(first),
        COUNT=len(columns),
        MAXIMUM=kind == "max",
        INDEX=index,
        ROWS=rows,
        WIDE=wide(x.shape[2:], levels, x, y),
        maxnreg=runtime.ALL_REGISTERS,
    )
    return y, indices
