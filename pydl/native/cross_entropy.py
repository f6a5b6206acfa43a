"""Cross entropy by the extension; definition and arguments in ``csrc/cross_entropy.h``."""

import torch

from pydl import layout
from pydl.native import Library


def cross_entropy_forward(
    library: Library,
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    results = layout.losses(x, reduction)
    operands = _operands(library, x, target, weight)
    flat = [t.view(-1) for t in results]
    criterion = ignore_index, label_smoothing, reduction
    library.call("cross_entropy_forward", *operands, *flat, *criterion, on=x)
    return results


def cross_entropy_backward(
    library: Library,
    grad_loss: torch.Tensor,
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    peak: torch.Tensor,
    total: torch.Tensor,
    divisor: torch.Tensor,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> torch.Tensor:
    grad_x = layout.empty(x.shape, x)
    library.call(
        "cross_entropy_backward",
        grad_loss.reshape(-1).contiguous(),
        *_operands(library, x, target, weight),
        peak.view(-1),
        total.view(-1),
        divisor.view(-1),
        layout.columns(grad_x, 1),
        ignore_index,
        label_smoothing,
        reduction,
        on=x,
    )
    return grad_x


def _operands(
    library: Library, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """x as (outer, C, inner); targets in the order of its positions, and probabilities in the order
    of its elements, as one line; the weights."""
    like = layout.memory_format(x)
    if target.is_floating_point():
        target = layout.columns(library.operand(target, like), 1)
    return (
        layout.columns(library.operand(x, like), 1),
        target.contiguous().view(-1),
        None if weight is None else library.contiguous(weight),
    )
