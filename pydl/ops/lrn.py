"""Local response normalisation across channels: checks, autograd, registered operators."""

import torch

from pydl import backends, layout
from pydl.contract.lrn import LrnBackward, LrnForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad
from pydl.ops.registry import operator
from pydl.ops.window import by_pytorch, refused
from pydl.reference import lrn as reference

_forward = operator(LrnForward)
_backward = operator(LrnBackward)


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
        grad_x = apply(_LrnGrad, grad_y, x, *ctx.arguments)
        return layout.as_elementwise(grad_x, grad_y), None, None, None, None, None


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
            lambda grad_y, x: reference.lrn_backward(LrnBackward(grad_y, x, *arguments)),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, None, None, None, None, None


def _real(name: str, value: float) -> float:
    if isinstance(value, str):
        raise TypeError(f"local_response_norm(): argument '{name}' must be float, not str")
    return float(value)


def local_response_norm(
    x: torch.Tensor, size: int, alpha: float, beta: float, k: float, backend: str | None
) -> torch.Tensor:
    checks.tensor("local_response_norm", "input", x)
    backend = backends.choose("lrn", backend, x, "lrn_forward")
    stock = torch.nn.functional.local_response_norm
    constants = {"alpha": alpha, "beta": beta, "k": k}
    if backend == "aten":
        return by_pytorch(stock, x, size, alpha, beta, k)
    try:
        if x.ndim < 3:
            raise ValueError(
                f"Expected 3D or higher dimensionality input (got {x.ndim} dimensions)"
            )
        (window,) = checks.axes("local_response_norm", "size", [size], 1, least=1)
        constants = tuple(_real(name, constant) for name, constant in constants.items())
    except (TypeError, ValueError, RuntimeError) as error:
        raise refused(error, stock, x, size, alpha, beta, k) from None
    maps = x.flatten(4) if x.ndim > 5 else x
    kind = "local_response_norm" if x.ndim == 3 else "local_response_norm_of_maps"
    maps = as_autocast(kind, maps.resolve_neg())
    arguments = window, *constants, backend
    y = _Lrn.apply(maps, *arguments) if needs_grad(maps) else _forward(maps, *arguments)
    y = y.reshape(x.shape) if x.ndim > 5 else y
    return layout.as_elementwise(y, x)
