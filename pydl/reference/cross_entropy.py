"""Cross entropy from its definition (csrc/cross_entropy.h)."""

from typing import NamedTuple

import torch

from pydl.contract.cross_entropy import CrossEntropyBackward, CrossEntropyForward
from pydl.reference import in_full_precision
from pydl.reference.softmax import centred


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of the classes at each position, and the sum of exponentials beyond it."""
    x = x if x.dtype == torch.float64 else x.float()
    if x.numel() == 0:
        return x.sum(1), x.sum(1)
    return x.detach().amax(1), centred(x, 1).exp().sum(1)


def _shares(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much lse - x[c] weighs in the loss of its position (N, C, ...), and what the mean counts
    of the position (N, ...)."""
    classes = x.shape[1]
    w = x.new_ones(classes) if weight is None else weight
    w = w.reshape(classes, *[1] * (x.ndim - 2))
    if target.is_floating_point():
        kept = (1 - label_smoothing) * target + label_smoothing / classes
        return w * kept, torch.ones_like(target.sum(1))
    counts = target != ignore_index
    chosen = torch.where(counts, target, 0).unsqueeze(1)
    hot = torch.zeros_like(x).scatter(1, chosen, 1)
    shares = (1 - label_smoothing) * w * hot + label_smoothing / classes * w
    shares = torch.where(counts.unsqueeze(1), shares, 0)
    return shares, (w * hot).sum(1) * counts


def _check_bounds(target: torch.Tensor, classes: int, ignore_index: int) -> None:
    outside = (target != ignore_index) & ((target < 0) | (target >= classes))
    if outside.any():
        raise IndexError(f"Target {target[outside][0].item()} is out of bounds.")


def _losses(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each position and what a reduction divides their sum by, in full precision."""
    x, target, weight = (
        t.float() if t is not None and t.dtype in (torch.float16, torch.bfloat16) else t
        for t in (x, target, weight)
    )
    shares, counted = _shares(x, target, weight, ignore_index, label_smoothing)
    peak, total = statistics(x)
    terms = shares * (total.log().unsqueeze(1) - (x - peak.unsqueeze(1)))
    if not target.is_floating_point():  # an infinite term of a class that nothing is asked of
        asked = shares != 0 if label_smoothing == 0 else (target != ignore_index).unsqueeze(1)
        terms = torch.where(asked, terms, 0)
    divisor = counted.sum() if reduction == "mean" else terms.new_ones(())
    return terms.sum(1), divisor


def cross_entropy_forward(
    call: CrossEntropyForward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss; peak and total of each position; the mean's divisor. The last three are saved and
    stay in full precision."""
    if not call.target.is_floating_point():
        _check_bounds(call.target, call.x.shape[1], call.ignore_index)
    value, divisor = loss(*call)
    return value, *statistics(call.x), divisor


def loss(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and the mean's divisor; targets are not looked at one by one, so a derivative can be
    batched."""
    losses, divisor = _losses(x, target, weight, ignore_index, label_smoothing, reduction)
    return (losses if reduction == "none" else losses.sum() / divisor).to(x.dtype), divisor


@in_full_precision
def cross_entropy_backward(call: CrossEntropyBackward) -> torch.Tensor:
    """grad_x = g (p W - shares), W the sum of a position's shares."""
    target = call.target
    shares, _ = _shares(call.x, target, call.weight, call.ignore_index, call.label_smoothing)
    p = (call.x - call.peak.unsqueeze(1)).exp() / call.total.unsqueeze(1)
    g = call.grad_loss / call.divisor
    g = g.unsqueeze(1) if call.reduction == "none" else g
    if not target.is_floating_point():  # also where nothing counts and the divisor is 0
        g = torch.where((target != call.ignore_index).unsqueeze(1), g, 0)
    return g * (p * shares.sum(1, keepdim=True) - shares)


class NllLoss(NamedTuple):
    x: torch.Tensor  # (N, C, ...): logarithms
    target: torch.Tensor  # (N, ...) of int64
    weight: torch.Tensor | None  # (C,)
    ignore_index: int
    reduction: str


@in_full_precision
def nll_loss(call: NllLoss) -> torch.Tensor:
    """Minus the logarithms x[n, target[n]], each times its class's weight; the mean is over the sum
    of these."""
    x, target, weight, ignore_index, reduction = call
    _check_bounds(target, x.shape[1], ignore_index)
    counts = target != ignore_index
    chosen = torch.where(counts, target, 0)
    w = x.new_ones(x.shape[1]) if weight is None else weight
    w = torch.where(counts, w[chosen], 0)
    losses = torch.where(counts, -w * x.gather(1, chosen.unsqueeze(1)).squeeze(1), 0)
    if reduction == "none":
        return losses
    return losses.sum() / w.sum() if reduction == "mean" else losses.sum()
