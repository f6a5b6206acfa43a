"""Dropout: checks, the seed, autograd, registered operators."""

import warnings

import torch

from pydl import backends, layout, plan
from pydl.contract.dropout import DropoutBackward, DropoutForward
from pydl.ops import checks
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.registry import operator

_forward = operator(DropoutForward)
_backward = operator(DropoutBackward)


class _Dropout(Function):
    @staticmethod
    def forward(x, p, seed, backend):
        return _forward(x, p, seed, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, p, seed, backend = inputs
        save(ctx, output, seed)
        ctx.arguments = p, layout.memory_format(output) is not torch.contiguous_format, backend

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_DropoutGrad, grad_y, *ctx.saved_tensors, *ctx.arguments), None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_DropoutGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


class _DropoutGrad(Function):
    """Linear, and its own transpose: so its derivative is itself."""

    @staticmethod
    def forward(grad_y, seed, p, channels_last, backend):
        grad_x = _backward(grad_y, p, seed, channels_last, backend)
        return layout.as_elementwise(grad_x, grad_y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, seed, *ctx.arguments = inputs
        save(ctx, output, seed)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad = apply(_DropoutGrad, grad_grad_x, *ctx.saved_tensors, *ctx.arguments)
        return grad, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_DropoutGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


def _seed(x: torch.Tensor) -> torch.Tensor:
    """The key of one call, from the default generator of the tensor's device: on a GPU it stays
    there, and nothing waits for it."""
    return plan.step(torch.randint, 2**63 - 1, (), device=x.device)


def _probability(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        error = ValueError if p == p else RuntimeError  # PyTorch refuses NaN later than others
        raise error(f"dropout probability has to be between 0 and 1, but got {p}")
    return float(p)


def dropout(
    x: torch.Tensor, p: float, training: bool, inplace: bool, backend: str | None
) -> torch.Tensor:
    checks.tensor("dropout", "input", x)
    backend = backends.choose("dropout", backend, x)
    if backend == "aten":
        return plan.step(torch.nn.functional.dropout, x, p, training, inplace)
    p = _probability(p)
    if p == 0 or not training or x.numel() == 0:
        return x
    y = _run(x.resolve_neg(), p, backend)
    return x.copy_(y) if inplace else layout.as_elementwise(y, x)


def _run(x: torch.Tensor, p: float, backend: str) -> torch.Tensor:
    seed = _seed(x)
    if needs_grad(x):
        return _Dropout.apply(x, p, seed, backend)
    return _forward(x, p, seed, backend)


_PYTORCH = (
    torch.nn.functional.dropout1d,
    torch.nn.functional.dropout2d,
    torch.nn.functional.dropout3d,
)


def feature_dropout(
    axes: int, x: torch.Tensor, p: float, training: bool, inplace: bool, backend: str | None
) -> torch.Tensor:
    """Whole channels: the mask of a map (N, C), or (C,) without a batch, times the map."""
    checks.tensor("dropout", "input", x)
    backend = backends.choose("dropout", backend, x)
    if backend == "aten":
        return plan.step(_PYTORCH[axes - 1], x, p, training, inplace)
    p = _probability(p)
    _check_axes(axes, x.ndim)
    # Without a batch (C, L) and (C, D, H, W) are one sample, but three axes in dropout2d are
    # (N, C, L).
    single = x.ndim != axes + 2 and axes != 2
    if not single and x.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if p == 0 or not training or x.numel() == 0:
        return x
    mask = _run(x.new_ones(x.shape[: 1 if single else 2]), p, backend)
    mask = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
    return x.mul_(mask) if inplace else x * mask


def _check_axes(axes: int, given: int) -> None:
    """What PyTorch says of the number of axes."""
    name, expected = f"dropout{axes}d", f"{axes + 1}D or {axes + 2}D"
    exists = (
        f"Note that {name} exists to provide channel-wise dropout on inputs with {axes} spatial "
        f"dimension{'s' * (axes > 1)}, a channel dimension, and an optional batch dimension (i.e. "
        f"{expected} inputs)."
    )
    if given not in (axes + 1, axes + 2):
        if axes == 1:
            raise RuntimeError(
                f"{name}: Expected {expected} input, but received a {given}D input. {exists}"
            )
        warnings.warn(
            f"{name}: Received a {given}-D input to {name}, which is deprecated and will result in "
            "an error in a future release. To retain the behavior and silence this warning, please "
            f"use dropout instead. {exists}",
            stacklevel=5,
        )
    elif axes == 2 and given == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout "
            "behavior is desired - input is interpreted as shape (N, C, L), where C is the channel "
            "dim. This behavior will change in a future release to interpret the input as one "
            "without a batch dimension, i.e. shape (C, H, W). To maintain the 1D channel-wise "
            "dropout behavior, please switch to using dropout1d instead.",
            stacklevel=5,
        )
