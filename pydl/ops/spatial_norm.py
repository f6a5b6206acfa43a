"""Response normalisation within a channel: checks, autograd, registered operators."""

import torch

from pydl import backends, layout
from pydl.aten import spatial_norm as aten
from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad
from pydl.ops.registry import operator
from pydl.reference import spatial_norm as reference

_forward = operator(SpatialNormForward)
_backward = operator(SpatialNormBackward)


class _SpatialNorm(Function):
    @staticmethod
    def forward(x, *arguments):
        return _forward(x, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *ctx.arguments = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad_y):
        (x,) = ctx.saved_tensors
        grad_x = apply(_SpatialNormGrad, grad_y, x, *ctx.arguments)
        return layout.as_elementwise(grad_x, grad_y), None, None, None, None, None


class _SpatialNormGrad(Function):
    """The gradient as a function of its own; its derivative is that of the reference's formula."""

    @staticmethod
    def forward(grad_y, x, *arguments):
        return _backward(grad_y, x, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, x, *ctx.arguments = inputs
        ctx.save_for_backward(grad_y, x)

    @staticmethod
    def backward(ctx, grad_grad_x):
        *arguments, _ = ctx.arguments
        grads = by_reference(
            lambda grad_y, x: reference.spatial_norm_backward(
                SpatialNormBackward(grad_y, x, *arguments)
            ),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, None, None, None, None, None


def spatial_response_norm(
    x: torch.Tensor, size: int, alpha: float, beta: float, k: float, backend: str | None
) -> torch.Tensor:
    name = "spatial_response_norm"
    checks.tensor(name, "input", x)
    backend = backends.choose("spatial_norm", backend, x, "spatial_norm_forward")
    if not 3 <= x.ndim <= 5:
        raise ValueError(f"Expected 3D to 5D input (got {x.ndim} dimensions)")
    (size,) = checks.axes(name, "size", [size], 1, least=1)
    arguments = size, float(alpha), float(beta), float(k)
    if backend == "aten":
        return aten.spatial_norm_forward(SpatialNormForward(x, *arguments))
    maps = as_autocast(f"{name}{x.ndim - 2}d", x.resolve_neg())
    if needs_grad(maps):
        y = _SpatialNorm.apply(maps, *arguments, backend)
    else:
        y = _forward(maps, *arguments, backend)
    return layout.as_elementwise(y, x)
