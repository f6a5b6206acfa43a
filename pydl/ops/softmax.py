"""Softmax along one axis and its logarithm: checks, autograd, registered operators."""

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import by_reference, needs_grad
from pydl.ops.registry import operator
from pydl.reference import softmax as reference

_forward = operator(
    "softmax_forward(Tensor x, int dim, bool log, str backend) -> Tensor",
    lambda x, *_: layout.empty(x.shape, x),
)
_backward = operator(
    "softmax_backward(Tensor grad_y, Tensor y, int dim, bool log, str backend) -> Tensor",
    lambda grad_y, y, *_: layout.empty(y.shape, y),
)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dim, log, backend):
        y = _forward(x, dim, log, backend)
        ctx.save_for_backward(y)
        ctx.arguments = dim, log, backend
        return y

    @staticmethod
    def backward(ctx, grad_y):
        (y,) = ctx.saved_tensors
        return apply(_SoftmaxGrad, grad_y, y, *ctx.arguments), None, None, None


class _SoftmaxGrad(torch.autograd.Function):
    """The gradient as a function of its own; its derivative is that of the reference's formula."""

    @staticmethod
    def forward(ctx, grad_y, y, dim, log, backend):
        ctx.save_for_backward(grad_y, y)
        ctx.arguments = dim, log
        return _backward(grad_y, y, dim, log, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grads = by_reference(
            lambda grad_y, y: reference.softmax_backward(grad_y, y, *ctx.arguments),
            ctx.saved_tensors,
            ctx.needs_input_grad[:2],
            grad_grad_x,
        )
        return *grads, None, None, None


def autocast(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32 where autocast is on and sends softmax there, as it does on a GPU."""
    raised = x.device.type == "cuda" and torch.is_autocast_enabled("cuda")
    return x.float() if raised and x.dtype in (torch.float16, torch.bfloat16) else x


def softmax(
    name: str, x: torch.Tensor, dim: int, dtype: torch.dtype | None, log: bool, backend: str | None
) -> torch.Tensor:
    checks.tensor(name, "input", x)
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"{name}(): argument 'dim' must be int, not {type(dim).__name__}")
    axes = max(x.ndim, 1)
    if not -axes <= dim < axes:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-axes}, {axes - 1}], "
            f"but got {dim})"
        )
    dim %= axes
    served = x if dtype is None or x.dtype == dtype else x.to(dtype)
    backend = backends.choose(_kind(served, dim), backend, served)
    if backend == "aten":
        return getattr(torch.nn.functional, name)(x, dim, dtype=dtype)
    x = (served if dtype is not None else autocast(x)).resolve_neg()
    if x.ndim == 0:
        return softmax(name, x.unsqueeze(0), 0, None, log, backend).squeeze(0)
    if needs_grad(x):
        return _Softmax.apply(x, dim, log, backend)
    return _forward(x, dim, log, backend)


# The most classes of a row that the native kernels keep in registers.
_SHORT = 64


def _kind(x: torch.Tensor, dim: int) -> str:
    """What the dispatch table decides on together: whether neighbours along ``dim`` are neighbours
    in memory, and few."""
    innermost = dim == 1
    if layout.memory_format(x) is torch.contiguous_format:
        innermost = dim >= x.ndim - 1 or all(n == 1 for n in x.shape[dim + 1 :])
    if not innermost:
        return "softmax_columns"
    return "softmax_short_rows" if x.ndim > 0 and x.shape[dim] <= _SHORT else "softmax"
