"""Losses of classes: checks, autograd, registered operators."""

import torch

from pydl import backends, plan
from pydl.contract.cross_entropy import CrossEntropyBackward, CrossEntropyForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.registry import operator
from pydl.reference import cross_entropy as reference

REDUCTIONS = ("none", "mean", "sum")

_forward = operator(CrossEntropyForward)
_backward = operator(CrossEntropyBackward)


class _CrossEntropy(Function):
    """The loss, and what its gradient needs besides the operands."""

    @staticmethod
    def forward(x, target, weight, *criterion):
        return _forward(x, target, weight, *criterion)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, target, weight, *ctx.criterion = inputs
        _, *statistics = output
        ctx.mark_non_differentiable(*statistics)
        save(ctx, output, x, target, weight, *statistics)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return (None,) * 7
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
        return reference.loss(x, target, weight, *criterion)[0]

    needs = [False, *ctx.needs_input_grad[1 : len(tensors)]]
    _, *grads = by_reference(loss, tensors, needs, grad_loss)
    return grads if weight is not None else (*grads, None)


class _CrossEntropyGrad(Function):
    """The gradient as a function of its own; its derivative is that of the reference's formula."""

    @staticmethod
    def forward(*operands_and_criterion):
        return _backward(*operands_and_criterion)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, _, _, divisor = inputs[:7]
        ctx.criterion = inputs[7:]
        save(ctx, output, *operands, divisor)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_loss, x, target, weight, divisor = ctx.saved_tensors
        *criterion, _ = ctx.criterion
        tensors = [grad_loss, x, target] + ([] if weight is None else [weight])

        def gradient(grad_loss, x, target, weight=None):
            statistics = reference.statistics(x)  # anew, for x's derivative goes through them
            saved = *statistics, divisor
            return reference.cross_entropy_backward(
                CrossEntropyBackward(grad_loss, x, target, weight, *saved, *criterion)
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
    checks.tensor("cross_entropy_loss", "input", x)
    # Whoever serves says what is wrong with a target that is no tensor.
    how = getattr(target, "dtype", None), weight is not None, reduction, label_smoothing
    backend = backends.choose("cross_entropy", backend, x, arguments=how)
    if backend == "aten":
        return plan.step(
            torch.nn.functional.cross_entropy,
            x,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    x, target, weight, ignore_index = _operands(
        "cross_entropy", x, target, weight, ignore_index, reduction
    )
    # PyTorch takes one below 0 for 0, and looks at it only where targets are indices.
    smoothing = max(float(label_smoothing), 0.0)
    if x.shape == target.shape:
        _check_probabilities(x, target, weight, ignore_index)
        for tensor in (target, weight):
            dtype = x.dtype if tensor is None else tensor.dtype
            x = x.to(torch.promote_types(x.dtype, dtype))
        target = target.to(x.dtype)
        weight = None if weight is None else weight.to(x.dtype)
        ignore_index = -100
    else:
        if smoothing > 1:
            raise RuntimeError(
                f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
            )
        _check_indices(x, target, weight)
        target = target.long()
    single = x.ndim == 1
    if single:
        x = x.unsqueeze(0)
        target = target.unsqueeze(0) if target.ndim == 0 or target.is_floating_point() else target
    arguments = (ignore_index, smoothing, reduction, backend)
    if needs_grad(x, target, weight):
        loss, *_ = _CrossEntropy.apply(x, target, weight, *arguments)
    else:
        loss, *_ = _forward(x, target, weight, *arguments)
    return loss.squeeze(0) if single and reduction == "none" else loss


def nll_loss(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: str,
    backend: str | None,
) -> torch.Tensor:
    """There is nothing to fuse in it: PyTorch's own serves it, or the definition."""
    checks.tensor("nll_loss_nd", "input", x)
    backend = backends.choose("nll_loss", backend, x, arguments=(weight is not None, reduction))
    if backend == "aten":
        how = {"ignore_index": ignore_index, "reduction": reduction}
        return plan.step(torch.nn.functional.nll_loss, x, target, weight, **how)
    x, target, weight, ignore_index = _operands(
        "nll_loss", x, target, weight, ignore_index, reduction
    )
    _check_indices(x, target, weight)
    target = target.long()
    if x.ndim > 1:
        return reference.nll_loss(reference.NllLoss(x, target, weight, ignore_index, reduction))
    call = reference.NllLoss(x.unsqueeze(0), target.reshape(1), weight, ignore_index, reduction)
    loss = reference.nll_loss(call)
    return loss.reshape(target.shape) if reduction == "none" else loss


def _operands(
    name: str,
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    ignore_index: int,
    reduction: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, int]:
    """Input, target and weight in autocast's precision where that is on, and an ignore_index."""
    checks.tensor(name, "target", target)
    if weight is not None:
        checks.tensor(name, "weight", weight)
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    for other, value in (("target", target), ("weight", weight)):
        if value is not None and value.device != x.device:
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but input is on "
                f"{x.device} and {other} is on {value.device}"
            )
    x, target = as_autocast(name, x).resolve_neg(), as_autocast(name, target)
    weight = None if weight is None else as_autocast(name, weight)
    return x, target, weight, checks.integer(name, "ignore_index", ignore_index)


_SCALARS = {
    torch.float64: "Double",
    torch.float32: "Float",
    torch.float16: "Half",
    torch.bfloat16: "BFloat16",
    torch.int64: "Long",
    torch.int32: "Int",
    torch.int16: "Short",
    torch.int8: "Char",
    torch.uint8: "Byte",
    torch.bool: "Bool",
}


def _scalar(dtype: torch.dtype) -> str:
    """The name that PyTorch's messages give a dtype."""
    return _SCALARS.get(dtype, str(dtype))


def _check_probabilities(
    x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int
) -> None:
    if not target.is_floating_point():
        raise RuntimeError(
            "Expected floating point type for target with class probabilities, got "
            f"{_scalar(target.dtype)}"
        )
    if ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    _check_classes(x, weight)


def _check_classes(x: torch.Tensor, weight: torch.Tensor | None) -> None:
    classes = x.shape[min(x.ndim - 1, 1)] if x.ndim > 0 else 0
    if classes == 0:
        raise RuntimeError(f"expected input with at least one class, got {list(x.shape)}")
    if weight is not None and tuple(weight.shape) != (classes,):
        said = "weight tensor should be defined either for all"
        if x.ndim > 2:
            raise RuntimeError(f"{said} or no classes")
        raise RuntimeError(
            f"{said} {classes} classes or no classes but got weight tensor of shape: "
            f"{list(weight.shape)}"
        )


def _check_indices(x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> None:
    """What PyTorch refuses of an input (N, C, ...) and class indices (N, ...), in its words."""
    if x.ndim < 1:
        raise ValueError(f"Expected 1 or more dimensions (got {x.ndim})")
    batch = target.shape[0] if target.ndim > 0 else 0
    if x.ndim == 1:
        if target.ndim == 1 and batch != 1:
            raise ValueError(
                f"For 1D input, 1D target must have size 1, but got target size: {batch}"
            )
    elif x.shape[0] != batch:
        raise ValueError(
            f"Expected input batch_size ({x.shape[0]}) to match target batch_size ({batch})."
        )
    if target.dtype not in (torch.int64, torch.uint8):
        raise RuntimeError(
            f"expected target dtype to be Long or Byte, but got {_scalar(target.dtype)}"
        )
    expected, given = [*x.shape[:1], *x.shape[2:]], list(target.shape)
    if x.ndim <= 2:
        if target.ndim > 1:
            raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    elif x.ndim == 4 and target.ndim != 3:
        raise RuntimeError(
            "only batches of spatial targets supported (3D tensors) but got targets of dimension: "
            f"{target.ndim}"
        )
    elif x.ndim == 4 and given != expected:
        raise RuntimeError(f"size mismatch (got input: {list(x.shape)} , target: {given}")
    elif given != expected:
        raise RuntimeError(f"Expected target size {expected}, got {given}")
    _check_classes(x, weight)
    if weight is not None and weight.dtype != x.dtype:
        raise RuntimeError(
            f"expected scalar type {_scalar(x.dtype)} but found {_scalar(weight.dtype)}"
        )
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            "The loss of class indices is not differentiable with respect to argument 'weight'. "
            "This input cannot have requires_grad True."
        )
