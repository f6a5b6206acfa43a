"""Cross entropy of classes: checks, autograd, registered operators."""

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import by_reference, needs_grad
from pydl.ops.registry import operator
from pydl.ops.softmax import autocast
from pydl.reference import cross_entropy as reference

REDUCTIONS = ("none", "mean", "sum")

_CRITERION = "int ignore_index, float label_smoothing, str reduction, str backend"
_forward = operator(
    f"cross_entropy_forward(Tensor x, Tensor target, Tensor? weight, {_CRITERION})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    lambda x, target, weight, ignore_index, label_smoothing, reduction, backend: layout.losses(
        x, reduction
    ),
)
_backward = operator(
    "cross_entropy_backward(Tensor grad_loss, Tensor x, Tensor target, Tensor? weight, "
    f"Tensor peak, Tensor total, Tensor divisor, {_CRITERION}) -> Tensor",
    lambda grad_loss, x, *_: layout.empty(x.shape, x),
)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, target, weight, *criterion):
        loss, *statistics = _forward(x, target, weight, *criterion)
        ctx.save_for_backward(x, target, weight, *statistics)
        ctx.criterion = criterion
        return loss

    @staticmethod
    def backward(ctx, grad_loss):
        x, target, weight, *statistics = ctx.saved_tensors
        grad_x = grad_target = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = apply(
                _CrossEntropyGrad, grad_loss, x, target, weight, *statistics, *ctx.criterion
            )
        if any(ctx.needs_input_grad[1:3]):
            grad_target, grad_weight = _grads_of_shares(ctx, x, target, weight, grad_loss)
        return grad_x, grad_target, grad_weight, None, None, None, None


def _grads_of_shares(ctx, x, target, weight, grad_loss):
    """The gradients of class probabilities and of weights, which few ask for: the reference's."""
    *criterion, _ = ctx.criterion
    tensors = [x, target] + ([] if weight is None else [weight])

    def loss(x, target, weight=None):
        return reference.cross_entropy_forward(x, target, weight, *criterion)[0]

    needs = [False, *ctx.needs_input_grad[1 : len(tensors)]]
    _, *grads = by_reference(loss, tensors, needs, grad_loss)
    return grads if weight is not None else (*grads, None)


class _CrossEntropyGrad(torch.autograd.Function):
    """The gradient as a function of its own; its derivative is that of the reference's formula."""

    @staticmethod
    def forward(ctx, grad_loss, x, target, weight, peak, total, divisor, *criterion):
        ctx.save_for_backward(grad_loss, x, target, weight, divisor)
        ctx.criterion = criterion
        return _backward(grad_loss, x, target, weight, peak, total, divisor, *criterion)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_loss, x, target, weight, divisor = ctx.saved_tensors
        *criterion, _ = ctx.criterion
        tensors = [grad_loss, x, target] + ([] if weight is None else [weight])

        def gradient(grad_loss, x, target, weight=None):
            statistics = reference.statistics(x)  # anew, for x's derivative goes through them
            return reference.cross_entropy_backward(
                grad_loss, x, target, weight, *statistics, divisor, *criterion
            )

        needs = ctx.needs_input_grad[: len(tensors)]
        grads = by_reference(gradient, tensors, needs, grad_grad_x)
        return *grads, *[None] * (11 - len(grads))


def cross_entropy(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
    backend: str | None,
) -> torch.Tensor:
    for name, value in (("input", x), ("target", target), ("weight", weight)):
        if value is not None or name != "weight":
            checks.tensor("cross_entropy", name, value)
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    backend = backends.choose("cross_entropy", backend, x)
    if backend == "aten":
        return torch.nn.functional.cross_entropy(
            x,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    x = autocast(x).resolve_neg()
    _check(x, target, weight, ignore_index, label_smoothing)
    if x.shape == target.shape:
        dtypes = [t.dtype for t in (x, target, weight) if t is not None]
        for dtype in dtypes:
            x = x.to(torch.promote_types(x.dtype, dtype))
        target = target.to(x.dtype)
        weight = None if weight is None else weight.to(x.dtype)
        ignore_index = -100
    else:
        target = target.long()
    single = x.ndim == 1
    if single:
        x = x.unsqueeze(0)
        target = target.unsqueeze(0) if target.ndim == 0 or target.is_floating_point() else target
    arguments = (ignore_index, float(label_smoothing), reduction, backend)
    if needs_grad(x, target, weight):
        loss = _CrossEntropy.apply(x, target, weight, *arguments)
    else:
        loss = _forward(x, target, weight, *arguments)[0]
    return loss.squeeze(0) if single and reduction == "none" else loss


def _check(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> None:
    """What PyTorch refuses, in its words."""
    name = "cross_entropy"
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    if x.ndim == 0 or x.shape[min(x.ndim - 1, 1)] == 0:
        raise RuntimeError(f"{name}: expected input with at least one class, got {list(x.shape)}")
    classes = x.shape[min(x.ndim - 1, 1)]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise RuntimeError(
            f"cross_entropy_loss: weight tensor should be defined either for all {classes} classes "
            f"or no classes but got weight tensor of shape: {list(weight.shape)}"
        )
    for other, value in (("target", target), ("weight", weight)):
        if value is not None and value.device != x.device:
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but input is on "
                f"{x.device} and {other} is on {value.device}"
            )
    if x.shape == target.shape:
        if not target.is_floating_point():
            raise RuntimeError(
                "Expected floating point type for target with class probabilities, got "
                f"{str(target.dtype).removeprefix('torch.')}"
            )
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        return
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {target.dtype}")
    if weight is not None and weight.dtype != x.dtype:
        raise RuntimeError(f"expected scalar type {x.dtype} but found {weight.dtype}")
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            f"{name} of class indices is not differentiable with respect to argument 'weight'. "
            "This input cannot have requires_grad True."
        )
    if x.ndim == 1:
        if target.ndim > 1 or target.numel() != 1:
            raise RuntimeError(
                f"size mismatch (got input: {list(x.shape)}, target: {list(target.shape)})"
            )
    elif x.ndim == 2:
        if target.ndim != 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
        if target.shape[0] != x.shape[0]:
            raise ValueError(
                f"Expected input batch_size ({x.shape[0]}) to match target batch_size "
                f"({target.shape[0]})."
            )
    elif target.shape != (x.shape[0], *x.shape[2:]):
        raise RuntimeError(
            f"size mismatch (got input: {list(x.shape)}, target: {list(target.shape)})"
        )
