"""PyTorch's cross entropy, and its gradient as PyTorch's own autograd takes it."""

import torch

from pydl.contract.cross_entropy import CrossEntropyBackward, CrossEntropyForward


def cross_entropy_forward(
    call: CrossEntropyForward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, target, weight, ignore_index, label_smoothing, reduction = call
    loss = _loss(x, target, weight, ignore_index, label_smoothing, reduction)
    wide = x if x.dtype == torch.float64 else x.float()
    peak = wide.amax(1) if x.numel() else wide.sum(1)
    total = (wide - peak.unsqueeze(1)).exp().sum(1)
    divisor = wide.new_ones(())
    if reduction == "mean" and target.is_floating_point():
        divisor = wide.new_tensor(float(peak.numel()))
    elif reduction == "mean":
        counted = target[target != ignore_index]
        w = wide.new_ones(x.shape[1]) if weight is None else weight.to(wide.dtype)
        divisor = w[counted].sum()
    return loss, peak, total, divisor


def cross_entropy_backward(call: CrossEntropyBackward) -> torch.Tensor:
    # The gradient of the log softmax: minus what each class weighs in the loss.
    grad_loss, x, target = call.grad_loss, call.x, call.target
    label_smoothing = call.label_smoothing
    classes = x.shape[1]
    w = x.new_ones(classes) if call.weight is None else call.weight
    w = w.reshape(classes, *[1] * (x.ndim - 2))
    g = (grad_loss / call.divisor.to(grad_loss.dtype)).reshape(-1, *[1] * (x.ndim - 1))
    if call.reduction == "none":
        g = grad_loss.unsqueeze(1)
    if target.is_floating_point():
        share = (target * (1 - label_smoothing) + label_smoothing / classes) * w * g
    else:
        counts = (target != call.ignore_index).unsqueeze(1)
        chosen = target.unsqueeze(1).where(counts, 0)
        share = torch.zeros_like(x).scatter(1, chosen, 1 - label_smoothing)
        share = torch.where(counts, (share + label_smoothing / classes) * w * g, 0)
    logs = torch.ops.aten._log_softmax(x, 1, False)
    return torch.ops.aten._log_softmax_backward_data(-share, logs, 1, x.dtype)


def _loss(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> torch.Tensor:
    if target.is_floating_point():  # where PyTorch refuses an ignore_index
        ignore_index = -100
    return torch.nn.functional.cross_entropy(
        x,
        target,
        weight,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
