"""Local response normalisation across channels: checks, autograd, registered operators."""

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad
from pydl.ops.registry import operator
from pydl.reference import lrn as reference

_ARGUMENTS = "int size, float alpha, float beta, float k, str backend"
_forward = operator(
    f"lrn_forward(Tensor x, {_ARGUMENTS}) -> Tensor", lambda x, *_: layout.empty(x.shape, x)
)
_backward = operator(
    f"lrn_backward(Tensor grad_y, Tensor x, {_ARGUMENTS}) -> Tensor",
    lambda grad_y, x, *_: layout.empty(x.shape, x),
)


class _Lrn(Function):
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
        return apply(_LrnGrad, grad_y, x, *ctx.arguments), None, None, None, None, None


class _LrnGrad(Function):
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
            lambda grad_y, x: reference.lrn_backward(grad_y, x, *arguments),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, None, None, None, None, None


def local_response_norm(
    x: torch.Tensor, size: int, alpha: float, beta: float, k: float, backend: str | None
) -> torch.Tensor:
    checks.tensor("local_response_norm", "input", x)
    backend = backends.choose("lrn", backend, x)
    if backend == "aten":
        return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)
    if x.ndim < 3:
        raise ValueError(f"Expected 3D or higher dimensionality input (got {x.ndim} dimensions)")
    (size,) = checks.axes("local_response_norm", "size", size, 1, least=1)
    if x.ndim > 5:
        return local_response_norm(x.flatten(4), size, alpha, beta, k, backend).unflatten(
            4, x.shape[4:]
        )
    x = x.resolve_neg()
    arguments = (size, float(alpha), float(beta), float(k), backend)
    if needs_grad(x):
        return _Lrn.apply(x, *arguments)
    return _forward(x, *arguments)
