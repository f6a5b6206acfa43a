"""Dropout: checks, the seed, autograd, registered operators."""

import warnings

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import needs_grad
from pydl.ops.registry import operator

_forward = operator(
    "dropout_forward(Tensor x, float p, Tensor seed, str backend) -> Tensor",
    lambda x, *_: layout.empty(x.shape, x),
)
_backward = operator(
    "dropout_backward(Tensor grad_y, float p, Tensor seed, bool channels_last, str backend)"
    " -> Tensor",
    lambda grad_y, p, seed, channels_last, backend: layout.empty(
        grad_y.shape, layout.ordered(grad_y, channels_last)
    ),
)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, p, seed, backend):
        y = _forward(x, p, seed, backend)
        ctx.save_for_backward(seed)
        ctx.arguments = p, layout.memory_format(y) is not torch.contiguous_format, backend
        return y

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_DropoutGrad, grad_y, *ctx.saved_tensors, *ctx.arguments), None, None, None


class _DropoutGrad(torch.autograd.Function):
    """Linear, and its own transpose: so its derivative is itself."""

    @staticmethod
    def forward(ctx, grad_y, seed, p, channels_last, backend):
        ctx.save_for_backward(seed)
        ctx.arguments = p, channels_last, backend
        return _backward(grad_y, p, seed, channels_last, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad = apply(_DropoutGrad, grad_grad_x, *ctx.saved_tensors, *ctx.arguments)
        return grad, None, None, None, None


def _seed(x: torch.Tensor) -> torch.Tensor:
    """The key of one call, from the default generator of the tensor's device: on a GPU it stays
    there, and nothing waits for it."""
    return torch.randint(2**63 - 1, (), device=x.device)


def _probability(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return float(p)


def dropout(
    x: torch.Tensor, p: float, training: bool, inplace: bool, backend: str | None
) -> torch.Tensor:
    checks.tensor("dropout", "input", x)
    p = _probability(p)
    backend = backends.choose("dropout", backend, x)
    if backend == "aten":
        return torch.nn.functional.dropout(x, p, training, inplace)
    if p == 0 or not training or x.numel() == 0:
        return x
    y = _run(x.resolve_neg(), p, backend)
    return x.copy_(y) if inplace else y


def _run(x: torch.Tensor, p: float, backend: str) -> torch.Tensor:
    seed = _seed(x)
    if needs_grad(x):
        return _Dropout.apply(x, p, seed, backend)
    return _forward(x, p, seed, backend)


def feature_dropout(
    name: str,
    axes: int,
    x: torch.Tensor,
    p: float,
    training: bool,
    inplace: bool,
    backend: str | None,
) -> torch.Tensor:
    """Whole channels: the mask of a map (N, C), or (C,) without a batch, times the map."""
    checks.tensor(name, "input", x)
    p = _probability(p)
    backend = backends.choose("dropout", backend, x)
    if backend == "aten":
        return getattr(torch.nn.functional, name)(x, p, training, inplace)
    if axes == 1 and x.ndim not in (2, 3):
        raise RuntimeError(f"dropout1d: Expected 2D or 3D input, but received a {x.ndim}D input.")
    if x.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    # (C, L) and (C, D, H, W) are one sample, but three axes in dropout2d are (N, C, L).
    single = x.ndim == axes + 1 and axes != 2
    if not single and x.ndim != axes + 2:
        warnings.warn(
            f"{name}: Received a {x.ndim}-D input, which is taken as (N, C, ...); expected "
            f"{axes + 2} axes",
            stacklevel=3,
        )
    if p == 0 or not training or x.numel() == 0:
        return x
    mask = _run(x.new_ones(x.shape[: 1 if single else 2]), p, backend)
    mask = mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
    return x.mul_(mask) if inplace else x * mask
