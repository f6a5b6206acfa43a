"""Cross entropy and its gradient, one pass each (definition: csrc/cross_entropy.h).

    loss[p]   = sum over c of share[c] * (lse - x[c])
    grad_x[c] = g * (exp(x[c] - peak) / total * sum of the shares - share[c])

A share is how much of a position's loss its class c carries: (1 - s) w[t] at the target t, s / C
w[c] everywhere, or w[c] ((1 - s) q[c] + s / C) for probabilities q.

Layouts, and how programs cover positions, as in softmax.py. Bytes: forward reads x once (shares of
all classes make it twice, the second time from a cache) and writes peak and total; backward reads x
and writes grad_x once. No probability is stored. Each program leaves the sum of its losses, which a
second kernel of one program adds up, so the order depends on the shape alone.
"""

import torch
import triton
import triton.language as tl

from pydl import layout
from pydl.contract.cross_entropy import CrossEntropyBackward, CrossEntropyForward

from . import runtime
from .elements import divide, filled, inline, narrow, number, widen
from .softmax import TILE, accumulate, columns_of, cover, joined, lowest

# Partial sums that one turn of the last kernel adds up.
PARTIALS = 1024


@inline
def share_of(
    weight_ptr,
    q_ptr,
    at,
    c,
    classes,
    mask,
    zero,
    smoothing,
    KIND: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """The shares of classes c that do not depend on a class index; 0 outside of ``mask``."""
    even = divide(zero + number(smoothing, zero), zero + classes)
    if KIND == "soft":
        q = widen(tl.load(q_ptr + at, mask=mask, other=0.0))
        even = q * number(1.0 - smoothing, zero) + even
    if WEIGHTED:
        even *= widen(tl.load(weight_ptr + c, mask=c < classes, other=0.0))
    return tl.where(mask, even, 0.0)


@inline
def target_of(
    target_ptr,
    weight_ptr,
    position,
    inside,
    classes,
    ignore_index,
    one,
    KIND: tl.constexpr,
    WEIGHTED: tl.constexpr,
):
    """The target t of each position, whether it counts and its weight, NaN where it is no class."""
    if KIND == "soft":
        t = tl.zeros_like(position)
        return t, inside, one
    else:
        t = tl.load(target_ptr + position, mask=inside, other=0)
        counts = inside & (t != ignore_index)
        exists = (t >= 0) & (t < classes)
        w = one
        if WEIGHTED:
            w = widen(tl.load(weight_ptr + t, mask=counts & exists, other=0.0))
        return t, counts, tl.where(exists, w, float("nan"))


@triton.jit
def cross_entropy_forward_kernel(
    x_ptr,  # (groups, columns and classes), contiguous
    target_ptr,  # (positions,) of int64, or probabilities like x
    weight_ptr,  # (classes,) or None
    loss_ptr,  # (positions,), written where EACH
    peak_ptr,  # (positions,), written
    total_ptr,  # (positions,), written
    partial_ptr,  # (2, programs), written
    programs,
    ignore_index,
    classes,
    columns,
    blocks,
    smoothing: tl.float64,
    KIND: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EACH: tl.constexpr,
    INNERMOST: tl.constexpr,
    MULTIPLE: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
    WIDE: tl.constexpr,
):
    position, first_class, class_stride, classes, exists = columns_of(
        tl.program_id(0), classes, columns, blocks, INNERMOST, MULTIPLE, BLOCK_COLUMNS, WIDE
    )
    start, inside = first_class[:, None], exists[:, None]  # [BLOCK_COLUMNS, 1]
    c = tl.arange(0, BLOCK_CLASSES)[None, :].to(start.dtype)
    peak = lowest([BLOCK_COLUMNS, BLOCK_CLASSES], x_ptr)
    total = filled([BLOCK_COLUMNS, BLOCK_CLASSES], 0.0, x_ptr)
    if ONE_BLOCK:
        mask = inside & (c < classes)
        peak = widen(tl.load(x_ptr + start + c * class_stride, mask=mask, other=-float("inf")))
        total += 1.0
    else:
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            x = widen(tl.load(x_ptr + at, mask=mask, other=-float("inf")))
            peak, total = accumulate(peak, total, x)
    peak, total = joined(peak, total)
    peak = tl.where(exists, peak, 0.0)  # [BLOCK_COLUMNS]
    total = tl.where(exists, total, 1.0)
    log_total = tl.log(total)
    tl.store(peak_ptr + position, peak, mask=exists)
    tl.store(total_ptr + position, total, mask=exists)

    zero = filled([BLOCK_COLUMNS], 0.0, x_ptr)
    t, counts, w = target_of(
        target_ptr,
        weight_ptr,
        position,
        exists,
        classes,
        ignore_index,
        zero + 1.0,
        KIND,
        WEIGHTED,
    )
    loss = zero
    if KIND != "soft":
        hit = counts & (w == w)
        x = widen(tl.load(x_ptr + first_class + t * class_stride, mask=hit, other=0.0))
        loss = number(1.0 - smoothing, zero) * w * (log_total - (x - peak))
    if KIND != "hard":
        zeros = filled([BLOCK_COLUMNS, BLOCK_CLASSES], 0.0, x_ptr)
        parts = zeros
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            z = widen(tl.load(x_ptr + at, mask=mask, other=0.0)) - peak[:, None]
            share = share_of(
                weight_ptr,
                target_ptr,
                at,
                first + c,
                classes,
                mask,
                zeros,
                smoothing,
                KIND,
                WEIGHTED,
            )
            parts += tl.where(mask, share * (log_total[:, None] - z), 0.0)
        loss += tl.sum(parts, 1)
    loss = tl.where(counts, loss, 0.0)
    if EACH:
        tl.store(loss_ptr + position, narrow(loss, loss_ptr), mask=exists)
    program = tl.program_id(0)
    tl.store(partial_ptr + program, tl.sum(loss))
    tl.store(partial_ptr + programs + program, tl.sum(tl.where(counts, w, 0.0)))


@triton.jit
def cross_entropy_reduce_kernel(
    partial_ptr,  # (2, programs)
    loss_ptr,  # (1,), written
    divisor_ptr,  # (1,), written
    programs,
    MEAN: tl.constexpr,
    PARTIALS: tl.constexpr,
):
    loss = filled([PARTIALS], 0.0, partial_ptr)
    divisor = filled([PARTIALS], 0.0, partial_ptr)
    for first in range(0, programs, PARTIALS):
        i = first + tl.arange(0, PARTIALS)
        loss += tl.load(partial_ptr + i, mask=i < programs, other=0.0)
        divisor += tl.load(partial_ptr + programs + i, mask=i < programs, other=0.0)
    # One lane of two: the interpreter stores no scalar that it computed.
    lane = tl.arange(0, 2)
    sum_of_losses = tl.sum(loss) + filled([2], 0.0, partial_ptr)
    by = filled([2], 1.0, partial_ptr)
    if MEAN:
        by = tl.sum(divisor) + filled([2], 0.0, partial_ptr)
    tl.store(divisor_ptr + lane, by, mask=lane < 1)
    tl.store(loss_ptr + lane, narrow(divide(sum_of_losses, by), loss_ptr), mask=lane < 1)


@triton.jit
def cross_entropy_backward_kernel(
    grad_loss_ptr,  # (positions,) where EACH, else (1,)
    x_ptr,  # (groups, columns and classes), contiguous
    target_ptr,  # (positions,) of int64, or probabilities like x
    weight_ptr,  # (classes,) or None
    peak_ptr,  # (positions,)
    total_ptr,  # (positions,)
    divisor_ptr,  # (1,)
    grad_x_ptr,  # like x, written
    ignore_index,
    classes,
    columns,
    blocks,
    smoothing: tl.float64,
    KIND: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EACH: tl.constexpr,
    INNERMOST: tl.constexpr,
    MULTIPLE: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
    ONE_BLOCK: tl.constexpr,
    UNROLL: tl.constexpr,
    WIDE: tl.constexpr,
):
    position, first_class, class_stride, classes, exists = columns_of(
        tl.program_id(0), classes, columns, blocks, INNERMOST, MULTIPLE, BLOCK_COLUMNS, WIDE
    )
    start, inside = first_class[:, None], exists[:, None]  # [BLOCK_COLUMNS, 1]
    c = tl.arange(0, BLOCK_CLASSES)[None, :].to(start.dtype)
    zero = filled([BLOCK_COLUMNS], 0.0, x_ptr)
    zeros = filled([BLOCK_COLUMNS, BLOCK_CLASSES], 0.0, x_ptr)
    t, counts, w = target_of(
        target_ptr,
        weight_ptr,
        position,
        exists,
        classes,
        ignore_index,
        zero + 1.0,
        KIND,
        WEIGHTED,
    )
    which = position if EACH else tl.zeros_like(position)
    g = widen(tl.load(grad_loss_ptr + which, mask=exists, other=0.0))
    g = divide(g, tl.load(divisor_ptr + tl.zeros_like(position), mask=exists, other=1.0))
    g = tl.where(counts, g, 0.0)
    hit = zero
    if KIND != "soft":
        hit = number(1.0 - smoothing, zero) * tl.where(counts, w, 0.0)
    shares = hit
    if KIND != "hard":
        parts = zeros
        for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
            mask = inside & (first + c < classes)
            at = start + (first + c) * class_stride
            share = share_of(
                weight_ptr,
                target_ptr,
                at,
                first + c,
                classes,
                mask,
                zeros,
                smoothing,
                KIND,
                WEIGHTED,
            )
            parts += share
        shares += tl.sum(parts, 1)
    peak = tl.load(peak_ptr + position, mask=exists, other=0.0)
    total = tl.load(total_ptr + position, mask=exists, other=1.0)
    scale = divide(shares, total)
    t, hit, peak, scale, g = t[:, None], hit[:, None], peak[:, None], scale[:, None], g[:, None]
    for first in tl.range(0, classes, BLOCK_CLASSES, loop_unroll_factor=UNROLL):
        mask = inside & (first + c < classes)
        at = start + (first + c) * class_stride
        z = widen(tl.load(x_ptr + at, mask=mask, other=0.0)) - peak
        value = tl.exp(z) * scale
        if KIND != "soft":
            value -= tl.where(first + c == t, hit, 0.0)
        if KIND != "hard":
            value -= share_of(
                weight_ptr,
                target_ptr,
                at,
                first + c,
                classes,
                mask,
                zeros,
                smoothing,
                KIND,
                WEIGHTED,
            )
        tl.store(grad_x_ptr + at, narrow(g * value, grad_x_ptr), mask=mask)


def cross_entropy_forward(
    call: CrossEntropyForward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss; peak and total of each position; the mean's divisor."""
    x, target, weight, ignore_index, label_smoothing, reduction = call
    loss, peak, total, divisor = call.results()
    _check_classes(target, x.shape[1], ignore_index)
    x, target, covered, programs = _problem(x, target)
    partials = layout.empty((2, programs), peak)
    arguments = (x, target, weight, loss, peak, total, partials, programs, ignore_index)
    named = covered | _constants(target, weight, label_smoothing, reduction)
    if programs > 0:
        runtime.launch(
            cross_entropy_forward_kernel,
            programs,
            x.device,
            *arguments,
            **named,
            WIDE=runtime.wide(x),
            maxnreg=runtime.ALL_REGISTERS,
        )
    # Without a reduction this writes the divisor only, and a sum that nobody reads.
    runtime.launch(
        cross_entropy_reduce_kernel,
        1,
        x.device,
        partials,
        layout.empty((), loss) if reduction == "none" else loss,
        divisor,
        programs,
        MEAN=reduction == "mean",
        PARTIALS=PARTIALS,
    )
    return loss, peak, total, divisor


def cross_entropy_backward(call: CrossEntropyBackward) -> torch.Tensor:
    """grad_x, in the layout of ``x``."""
    x, target = call.x, call.target
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    x, target, covered, programs = _problem(x, target)
    runtime.launch(
        cross_entropy_backward_kernel,
        programs,
        x.device,
        call.grad_loss.contiguous(),
        x,
        target,
        call.weight,
        call.peak,
        call.total,
        call.divisor,
        grad_x,
        call.ignore_index,
        **covered,
        **_constants(target, call.weight, call.label_smoothing, call.reduction),
        WIDE=runtime.wide(x),
        maxnreg=runtime.ALL_REGISTERS,
    )
    return grad_x


def _problem(
    x: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, int], int]:
    """x and the target as the kernels read them, their arguments and the number of programs."""
    like = layout.memory_format(x)
    x = layout.dense(x)
    target = layout.dense(target, like) if target.is_floating_point() else target.contiguous()
    tile = TILE // 2 if x.element_size() == 8 else TILE
    programs, covered = cover(layout.columns(x, 1), tile, lanes=True, whole=False)
    return x, target, covered, programs


def _constants(
    target: torch.Tensor, weight: torch.Tensor | None, label_smoothing: float, reduction: str
) -> dict[str, object]:
    index = "smooth" if label_smoothing > 0 else "hard"
    return {
        "KIND": "soft" if target.is_floating_point() else index,
        "smoothing": float(label_smoothing),
        "WEIGHTED": weight is not None,
        "EACH": reduction == "none",
    }


def _check_classes(target: torch.Tensor, classes: int, ignore_index: int) -> None:
    """Raises for a class that does not exist, where looking does not wait for a GPU."""
    looks = runtime.INTERPRETING and target.device.type == "cpu"
    if target.is_floating_point() or not looks:
        return
    wrong = target[((target < 0) | (target >= classes)) & (target != ignore_index)]
    if wrong.numel() > 0:
        raise IndexError(f"Target {wrong[0].item()} is out of bounds.")
