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

import math
from typing import Any

import torch
import triton
import triton.language as tl

from pydl import layout
from pydl.contract.softmax import SoftmaxBackward, SoftmaxForward

from . import runtime
from .elements import INTERPRETING, as_offset, divide, filled, inline, narrow, widen

# The most classes a program holds at once, and elements of its tile.
MOST_CLASSES = 4096
TILE = 2048
# Rows of no more classes are a lane's.
FEW_CLASSES = 32
# Elements of a tile of lanes that go over the classes: four each.
LANES = 512


@inline
def columns_of(
    program,
    classes,
    columns,
    blocks,
    INNERMOST: tl.constexpr,
    MULTIPLE: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The position [BLOCK_COLUMNS] of each of this program's columns, the offset of its first
    class and that from a class to the next, how many classes there are, and which of the columns
    exist. The classes are a multiple of MULTIPLE, which the compiler is told by a product."""
    program = as_offset(program, WIDE)
    group = program // blocks
    column = (program % blocks) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    inside = column < columns
    if INNERMOST:
        classes = classes // MULTIPLE * MULTIPLE
        return column, column * classes, 1, classes, inside
    else:
        start = group * columns * classes + column
        return group * columns + column, start, columns, classes, inside


@inline
def lowest(SHAPE: tl.constexpr, pointer):
    """Peaks so far of no class: the lowest finite number, with which no difference is NaN."""
    if pointer.dtype.element_ty == tl.float64:
        return filled(SHAPE, -1.7976931348623157e308, pointer)
    else:
        return filled(SHAPE, -3.4028234663852886e38, pointer)


@inline
def exp_down(distance):
    """exp(-|distance|) to be added to 1 or more: of float32 what is not normal is 0, for which the
    hardware has one instruction instead of four."""
    if distance.dtype == tl.float64 or INTERPRETING:
        return tl.exp(-tl.abs(distance))
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;",
            "=f,f",
            [tl.abs(distance) * -1.4426950408889634],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )


@inline
def accumulate(peak, total, x):
    """Each lane's running peak and total after one class more, x; -inf adds nothing. One
    exponential: of the two in exp(peak - now) * total + exp(x - now) one is 1."""
    above = x - peak
    e = exp_down(above)
    return tl.maximum(peak, x), tl.where(above > 0, total * e + 1.0, total + e)


@inline
def joined(peak, total):
    """Peak and total [BLOCK_COLUMNS] of columns whose classes lanes [BLOCK_COLUMNS, BLOCK_CLASSES]
    have parts of. A column of -inf alone has no softmax."""
    top = tl.max(peak, 1)
    total = tl.sum(total * tl.exp(peak - top[:, None]), 1)
    none = total == 0
    return tl.where(none, -float("inf"), top), tl.where(none, float("nan"), total)


@inline
def share_of_total(e, total, y_ptr):
    """e / total as y_ptr stores it: 16 bits do not show the rounding of one division a column."""
    if y_ptr.dtype.element_ty.primitive_bitwidth == 16:
        return e * divide(total * 0.0 + 1.0, total)
    else:
        return divide(e, total + tl.zeros_like(e))


@triton.jit
def softmax_forward_kernel(
    x_ptr,  # (groups, columns and classes), contiguous
    y_ptr,  # like x, written
    classes,
    columns,
    blocks,
    LOG: tl.constexpr,
    INNERMOST: tl.constexpr,
    MULTIPLE: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
    WIDE: tl.constexpr,
):
    _, start, class_stride, classes, inside = columns_of(
        tl.program_id(0), classes, columns, blocks, INNERMOST, MULTIPLE, BLOCK_COLUMNS, WIDE
    )
    start, inside = start[:, None], inside[:, None]
    c = tl.arange(0, BLOCK_CLASSES)[None, :].to(start.dtype)
    if ONE_BLOCK:
        mask = inside & (c < classes)
        at = start + c * class_stride
        x = widen(tl.load(x_ptr + at, mask=mask, other=-float("inf")))
        peak = tl.max(x, 1)
        z = x - peak[:, None]  # a column of -inf alone is NaN from here
        e = tl.exp(z)
        total = tl.sum(e, 1)
        y = z - tl.log(total)[:, None] if LOG else share_of_total(e, total[:, None], y_ptr)
        tl.store(y_ptr + at, narrow(y, y_ptr), mask=mask)
    else:
        peak = lowest([BLOCK_COLUMNS, BLOCK_CLASSES], x_ptr)
        total = filled([BLOCK_COLUMNS, BLOCK_CLASSES], 0.0, x_ptr)
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            x = widen(tl.load(x_ptr + at, mask=mask, other=-float("inf")))
            peak, total = accumulate(peak, total, x)
        peak, total = joined(peak, total)
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            z = widen(tl.load(x_ptr + at, mask=mask, other=0.0)) - peak[:, None]
            if LOG:
                y = z - tl.log(total)[:, None]
            else:
                y = share_of_total(tl.exp(z), total[:, None], y_ptr)
            tl.store(y_ptr + at, narrow(y, y_ptr), mask=mask)


@triton.jit
def softmax_backward_kernel(
    grad_y_ptr,  # (groups, columns and classes), contiguous
    y_ptr,  # like grad_y
    grad_x_ptr,  # like grad_y, written
    classes,
    columns,
    blocks,
    LOG: tl.constexpr,
    INNERMOST: tl.constexpr,
    MULTIPLE: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
    WIDE: tl.constexpr,
):
    _, start, class_stride, classes, inside = columns_of(
        tl.program_id(0), classes, columns, blocks, INNERMOST, MULTIPLE, BLOCK_COLUMNS, WIDE
    )
    start, inside = start[:, None], inside[:, None]
    c = tl.arange(0, BLOCK_CLASSES)[None, :].to(start.dtype)
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
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            term = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
            if not LOG:
                term *= widen(tl.load(y_ptr + at, mask=mask, other=0.0))
            sums += tl.sum(term, 1)
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            grad_y = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))
            y = widen(tl.load(y_ptr + at, mask=mask, other=0.0))
            by = sums[:, None]
            grad_x = grad_y - tl.exp(y) * by if LOG else y * (grad_y - by)
            tl.store(grad_x_ptr + at, narrow(grad_x, grad_x_ptr), mask=mask)


def cover(
    x: torch.Tensor, elements: int = TILE, lanes: bool = False, whole: bool = True
) -> tuple[int, dict[str, Any]]:
    """How programs cover x (outer, classes, inner): how many, and a kernel's arguments. Rows of one
    group where the classes are innermost, else a group each outer index. ``lanes``: where that is
    no worse for memory, lanes go over the classes of their own columns; ``whole``: elsewhere a
    program has all classes at once, where it can, else fewer of more columns."""
    outer, classes, inner = x.shape
    innermost = inner == 1
    groups, columns = (1, outer) if innermost else (outer, inner)
    multiple = math.gcd(classes, 16 // x.element_size()) if innermost else 1
    lanes = lanes and (not innermost or classes <= FEW_CLASSES)
    enough = runtime.power_of_two(outer * inner // 512)  # columns, for there to be programs enough
    least, warps = 1 if innermost else 16, 4  # side by side: at least a few sectors of memory
    all_classes = runtime.power_of_two(classes)
    if lanes:
        # Four columns a lane where that leaves programs enough, else as many classes as well.
        wide = min(LANES, max(128, enough))
        block_columns = min(wide, max(16, runtime.power_of_two(columns)))
        block_classes = multiple if innermost else min(LANES // block_columns, all_classes)
    elif whole:
        most = TILE if classes > MOST_CLASSES else MOST_CLASSES  # of several blocks sums are kept
        block_classes = min(all_classes, most if innermost else 128)
        block_columns = max(least, min(elements // block_classes, runtime.power_of_two(columns)))
    elif enough > 1:
        # Few lanes a row, which add up what they have at its end.
        block_columns = min(enough, 64)
        block_classes = min(all_classes, elements // 2 // block_columns)
    else:
        # Up to half of the tile is a warp's.
        block_columns, block_classes = 1, min(all_classes, 2 * elements)
        warps = max(1, 2 * block_classes // elements)
    blocks = triton.cdiv(columns, block_columns)
    return groups * blocks, {
        "classes": classes,
        "columns": columns,
        "blocks": blocks,
        "INNERMOST": innermost,
        "MULTIPLE": multiple,
        "BLOCK_COLUMNS": block_columns,
        "BLOCK_CLASSES": block_classes,
        "ONE_BLOCK": not lanes and classes <= block_classes,
        "UNROLL": 4 if lanes else 1 if whole else 2,
        "num_warps": warps,
    }


def softmax_forward(call: SoftmaxForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, dim, log = call
    y = call.results()
    if y.numel() == 0:
        return y
    x = layout.dense(x)
    programs, covered = cover(layout.columns(x, dim), lanes=True)
    runtime.launch(
        softmax_forward_kernel,
        programs,
        x.device,
        x,
        y,
        **covered,
        LOG=log,
        WIDE=runtime.wide(x),
        maxnreg=runtime.ALL_REGISTERS,
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
    programs, covered = cover(layout.columns(y, dim), TILE // 2)
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
