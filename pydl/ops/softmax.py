"""Softmax along one axis and its logarithm: checks, autograd, registered operators."""

import math

import torch

from pydl import backends, dispatch, plan
from pydl.contract.softmax import SoftmaxBackward, SoftmaxForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.registry import operator
from pydl.reference import softmax as reference
from pydl.shapes import axis

_forward = operator(SoftmaxForward)
_backward = operator(SoftmaxBackward)


class _Softmax(Function):
    @staticmethod
    def forward(x, *arguments):
        return _forward(x, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, *ctx.arguments = inputs
        save(ctx, output, output)

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_SoftmaxGrad, grad_y, *ctx.saved_tensors, *ctx.arguments), None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        (y,), (dim, log, _) = ctx.saved_tensors, ctx.arguments
        if log:
            return tangent - (y.exp() * tangent).sum(dim, keepdim=True)
        return apply(_SoftmaxGrad, tangent, y, *ctx.arguments)  # whose matrix is symmetric


class _SoftmaxGrad(Function):
    """The gradient as a function of its own; its derivative is that of the reference's formula."""

    @staticmethod
    def forward(grad_y, y, *arguments):
        return _backward(grad_y, y, *arguments)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, y, *ctx.arguments = inputs
        save(ctx, output, grad_y, y)

    @staticmethod
    def backward(ctx, grad_grad_x):
        dim, log, _ = ctx.arguments
        grads = by_reference(
            lambda grad_y, y: reference.softmax_backward(SoftmaxBackward(grad_y, y, dim, log)),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, None, None, None


_PYTORCH = {False: torch.nn.functional.softmax, True: torch.nn.functional.log_softmax}


def softmax(
    name: str, x: torch.Tensor, dim: int, dtype: torch.dtype | None, log: bool, backend: str | None
) -> torch.Tensor:
    checks.tensor(name, "input", x)
    served = x if dtype is None or x.dtype == dtype else x.to(dtype)
    kind = _kind(name, served, dim)
    backend = backends.choose(kind, backend, served, arguments=(dim, log))
    if backend == "aten":
        return plan.step(_PYTORCH[log], x, dim, dtype=dtype)
    dim = axis(name, dim, x)
    x = served if dtype is not None else as_autocast("softmax", x)
    if x.ndim == 0:
        return softmax(name, x.unsqueeze(0), 0, dtype, log, backend).squeeze(0)
    # PyTorch's results are contiguous, whatever the argument's layout.
    x = x.resolve_neg().contiguous()
    arguments = dim, log, backend
    if needs_grad(x):
        return _Softmax.apply(x, *arguments)
    return _forward(x, *arguments)


# The most classes of a row that the native kernels keep in registers.
_SHORT = 64


def _is_small(x: torch.Tensor) -> bool:
    """Whether it is too small for any row of the table that is chosen apart."""
    least, count = dispatch.LEAST, x.numel()
    return count < least.get(("softmax_columns", x.dtype), math.inf) and count < least.get(
        ("softmax_short_rows", x.dtype), math.inf
    )


def _kind(name: str, x: torch.Tensor, dim: int) -> str:
    """What the dispatch table decides on together: whether neighbours along ``dim`` are neighbours
    in memory, and few. Of what it has no row for, nothing more is asked."""
    compiling = torch.compiler.is_compiling()
    by_table = x.is_cpu and not compiling and not dispatch.exactly
    if x.is_nested or (by_table and _is_small(x)):
        return "softmax"
    shape, dim = x.shape, checks.integer(name, "dim", dim)
    dim = dim if dim >= 0 else dim + len(shape)
    if not 0 <= dim < len(shape):  # whoever serves says so
        return "softmax"
    if any(n != 1 for n in shape[dim + 1 :]):
        return "softmax_columns"
    if compiling:
        from torch.fx.experimental.symbolic_shapes import has_static_value  # takes 0.4 s

        if not has_static_value(shape[dim]):
            return "softmax"
    return "softmax_short_rows" if shape[dim] <= _SHORT else "softmax"
