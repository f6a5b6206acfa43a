"""Response normalisation within a channel: checks, autograd, registered operators."""

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import by_reference
from pydl.ops.registry import operator
from pydl.reference import spatial_norm as reference

_ARGUMENTS = "int size, float alpha, float beta, float k, str backend"
_forward = operator(
    f"spatial_norm_forward(Tensor x, {_ARGUMENTS}) -> Tensor",
    lambda x, *_: layout.empty(x.shape, x),
)
_backward = operator(
    f"spatial_norm_backward(Tensor grad_y, Tensor x, {_ARGUMENTS}) -> Tensor",
    lambda grad_y, x, *_: layout.empty(x.shape, x),
)


class _SpatialNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, *arguments):
        ctx.save_for_backward(x)
        ctx.arguments = arguments
        return _forward(x, *arguments)

    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved_tensors
        return apply(_SpatialNormGrad, grad_y, x, *ctx.arguments), None, None, None, None, None


class _SpatialNormGrad(torch.autograd.Function):
    """The gradient as a function of its own; its derivative is that of the reference's formula."""

    @staticmethod
    def forward(ctx, grad_y, x, *arguments):
        ctx.save_for_backward(grad_y, x)
        ctx.arguments = arguments
        return _backward(grad_y, x, *arguments)

    @staticmethod
    def backward(ctx, grad_grad_x):
        *arguments, _ = ctx.arguments
        grads = by_reference(
            lambda grad_y, x: reference.spatial_norm_backward(grad_y, x, *arguments),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, None, None, None, None, None


def spatial_response_norm(
    x: torch.Tensor, size: int, alpha: float, beta: float, k: float, backend: str | None
) -> torch.Tensor:
    checks.tensor("spatial_response_norm", "input", x)
    backend = backends.choose("spatial_norm", backend, x)
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"Expected 3D to 5D input (got {x.ndim} dimensions)")
    (size,) = checks.axes("spatial_response_norm", "size", size, 1, least=1)
    x = x.resolve_neg()
    arguments = (size, float(alpha), float(beta), float(k), backend)
    if torch.is_grad_enabled() and x.requires_grad:
        return _SpatialNorm.apply(x, *arguments)
    return _forward(x, *arguments)
