"""Softmax and log softmax along one axis, and their gradients (definition: csrc/softmax.h).

    softmax      y = exp(x - peak) / total        grad_x = y * (grad_y - sum of grad_y * y)
    log softmax  y = x - peak - log(total)        grad_x = grad_y - exp(y) * sum of grad_y

Layouts: contiguous or channels last; other views are copied first. A program covers BLOCK_COLUMNS
columns (outer, inner) with all of their classes, BLOCK_CLASSES at a time. Where the axis is
innermost the columns are rows of memory, else neighbours in memory are neighbouring columns: two
strides tell the cases apart, the one that is 1 a constant of the compiled kernel.

Bytes: x read and y written once where a column's classes fit one block (4,096 of them alone in a
program), else x read twice: the running peak and total of a column need no more. Why this form: one
pass where separate reductions take four, and no transposed copy for any axis.
"""

import torch
import triton
import triton.language as tl

from pydl import layout
from pydl.contract.softmax import SoftmaxBackward, SoftmaxForward

from . import runtime
from .elements import as_offset, divide, filled, inline, narrow, widen

# The most classes a program holds at once, and elements of its tile.
MOST_CLASSES = 4096
TILE = 2048
# Rows of no more classes are a lane's.
FEW_CLASSES = 32


@inline
def columns_of(program, columns, blocks, BLOCK_COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """The group and the columns [BLOCK_COLUMNS, 1] of this program, and which of those exist."""
    program = as_offset(program, WIDE)
    group = program // blocks
    column = (program % blocks) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[:, None]
    return group, column, column < columns


@inline
def accumulate(peak, total, x):
    """The running peak and total [BLOCK_COLUMNS] after the classes x [BLOCK_COLUMNS,
    BLOCK_CLASSES], -inf where there are none. A peak of -inf stands for 0, so that what is -inf so
    far adds 0 and not NaN."""
    now = tl.maximum(peak, tl.max(x, 1))
    base = tl.where(now == -float("inf"), 0.0, now)
    total = total * tl.exp(peak - base) + tl.sum(tl.exp(x - base[:, None]), 1)
    return now, total


@triton.jit
def softmax_forward_kernel(
    x_ptr,  # (groups, columns and classes), contiguous
    y_ptr,  # like x, written
    classes,
    columns,
    blocks,
    column_stride,
    class_stride,
    LOG: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    group, column, inside = columns_of(tl.program_id(0), columns, blocks, BLOCK_COLUMNS, WIDE)
    start = group * columns * classes + column * column_stride
    c = tl.arange(0, BLOCK_CLASSES)[None, :].to(column.dtype)
    UNROLL: tl.constexpr = 4 if BLOCK_CLASSES == 1 else 1
    peak = filled([BLOCK_COLUMNS], -float("inf"), x_ptr)
    total = filled([BLOCK_COLUMNS], 0.0, x_ptr)
    if ONE_BLOCK:
        mask = inside & (c < classes)
        at = start + c * class_stride
        x = widen(tl.load(x_ptr + at, mask=mask, other=-float("inf")))
        peak = tl.max(x, 1)
        z = x - peak[:, None]  # a column of -inf alone is NaN from here
        e = tl.exp(z)
        total = tl.sum(e, 1)
        y = z - tl.log(total)[:, None] if LOG else divide(e, total[:, None] + tl.zeros_like(e))
        tl.store(y_ptr + at, narrow(y, y_ptr), mask=mask)
    else:
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            x = widen(tl.load(x_ptr + at, mask=mask, other=-float("inf")))
            peak, total = accumulate(peak, total, x)
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            z = widen(tl.load(x_ptr + at, mask=mask, other=0.0)) - peak[:, None]
            if LOG:
                y = z - tl.log(total)[:, None]
            else:
                y = divide(tl.exp(z), total[:, None] + tl.zeros_like(z))
            tl.store(y_ptr + at, narrow(y, y_ptr), mask=mask)


@triton.jit
def softmax_backward_kernel(
    grad_y_ptr,  # (groups, columns and classes), contiguous
    y_ptr,  # like grad_y
    grad_x_ptr,  # like grad_y, written
    classes,
    columns,
    blocks,
    column_stride,
    class_stride,
    LOG: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    group, column, inside = columns_of(tl.program_id(0), columns, blocks, BLOCK_COLUMNS, WIDE)
    start = group * columns * classes + column * column_stride
    c = tl.arange(0, BLOCK_CLASSES)[None, :].to(column.dtype)
    if ONE_BLOCK:
        mask = inside & (c < classes)
        at = start + c * class_stride
        grad_y = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
        y = widen(tl.load(y_ptr + at, mask=mask, other=0.0))
        sums = tl.sum(grad_y if LOG else grad_y * y, 1)[:, None]
        grad_x = grad_y - tl.exp(y) * sums if LOG else y * (grad_y - sums)
        tl.store(grad_x_ptr + at, narrow(grad_x, grad_x_ptr), mask=mask)
    else:
        sums = filled([BLOCK_COLUMNS], 0.0, y_ptr)
        for first in range(0, classes, BLOCK_CLASSES):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            term = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
            if not LOG:
                term *= widen(tl.load(y_ptr + at, mask=mask, other=0.0))
            sums += tl.sum(term, 1)
        for first in range(0, classes, BLOCK_CLASSES):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            grad_y = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
            y = widen(tl.load(y_ptr + at, mask=mask, other=0.0))
            by = sums[:, None]
            grad_x = grad_y - tl.exp(y) * by if LOG else y * (grad_y - by)
            tl.store(grad_x_ptr + at, narrow(grad_x, grad_x_ptr), mask=mask)


def cover(
    outer: int, classes: int, inner: int, elements: int = TILE, lanes: bool = False
) -> tuple[int, dict[str, int]]:
    """How programs cover (outer, classes, inner): how many, and a kernel's arguments. Rows of one
    group where the classes are innermost, else a group each outer index. ``lanes``: one class at a
    time where that is no worse for memory, so that a column is one lane's and no lanes exchange
    anything."""
    rows = inner == 1
    groups, columns = (1, outer) if rows else (outer, inner)
    if lanes and (not rows or classes <= FEW_CLASSES):
        # Four columns a lane where that leaves programs enough.
        wide = min(512, max(128, runtime.power_of_two(outer * inner // 512)))
        block_columns = min(wide, max(16, runtime.power_of_two(columns)))
        blocks = triton.cdiv(columns, block_columns)
        return groups * blocks, {
            "classes": classes,
            "columns": columns,
            "blocks": blocks,
            "column_stride": classes if rows else 1,
            "class_stride": 1 if rows else inner,
            "BLOCK_COLUMNS": block_columns,
            "BLOCK_CLASSES": 1,
            "ONE_BLOCK": False,
        }
    block_classes = min(runtime.power_of_two(classes), MOST_CLASSES if rows else 128)
    least = 1 if rows else 16  # columns side by side fill at least a few sectors of memory
    block_columns = max(least, min(elements // block_classes, runtime.power_of_two(columns)))
    blocks = triton.cdiv(columns, block_columns)
    return groups * blocks, {
        "classes": classes,
        "columns": columns,
        "blocks": blocks,
        "column_stride": classes if rows else 1,
        "class_stride": 1 if rows else inner,
        "BLOCK_COLUMNS": block_columns,
        "BLOCK_CLASSES": block_classes,
        "ONE_BLOCK": classes <= block_classes,
    }


def softmax_forward(call: SoftmaxForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, dim, log = call
    y = call.results()
    if y.numel() == 0:
        return y
    x = layout.dense(x)
    programs, covered = cover(*layout.columns(x, dim).shape, lanes=True)
    runtime.launch(
        softmax_forward_kernel, programs, x.device, x, y, **covered, LOG=log, WIDE=runtime.wide(x)
    )
    return y


def softmax_backward(call: SoftmaxBackward) -> torch.Tensor:
    """grad_x, in the layout of ``y``."""
    grad_y, y, dim, log = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    y, grad_y = layout.dense(y), layout.dense(grad_y, layout.memory_format(y))
    # Half of the tile: two operands are in registers at once.
    programs, covered = cover(*layout.columns(y, dim).shape, TILE // 2)
    runtime.launch(
        softmax_backward_kernel,
        programs,
        y.device,
        grad_y,
        y,
        grad_x,
        **covered,
        LOG=log,
        WIDE=runtime.wide(y),
        maxnreg=runtime.ALL_REGISTERS if y.dtype == torch.float64 else None,
    )
    return grad_x
