"""Power-average pooling over one to three axes: checks, autograd, registered operators."""

import math
from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import by_reference, needs_grad
from pydl.ops.pool import max_pool
from pydl.ops.registry import operator
from pydl.ops.window import batched, outputs, windows
from pydl.reference import pool_lp as reference

_WINDOW = "float norm_type, int[] kernel_size, int[] stride"
_forward = operator(
    f"lp_pool_forward(Tensor x, {_WINDOW}, SymInt[] output_size, str backend) -> Tensor",
    lambda x, norm_type, kernel_size, stride, output_size, _: layout.resized(x, output_size),
)
_backward = operator(
    f"lp_pool_backward(Tensor grad_y, Tensor x, Tensor y, {_WINDOW}, str backend) -> Tensor",
    lambda grad_y, x, *_: layout.empty(x.shape, x),
)


class _LpPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, window, output_size, backend):
        y = _forward(x, *window, output_size, backend)
        ctx.save_for_backward(x, y)
        ctx.arguments = window, backend
        return y

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_LpPoolGrad, grad_y, *ctx.saved_tensors, *ctx.arguments), None, None, None


class _LpPoolGrad(torch.autograd.Function):
    """The gradient as a function of grad_y and x; its derivative is that of the reference's
    formulas, y among them."""

    @staticmethod
    def forward(ctx, grad_y, x, y, window, backend):
        ctx.save_for_backward(grad_y, x)
        ctx.arguments = window
        return _backward(grad_y, x, y.detach(), *window, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        window = ctx.arguments

        def gradient(grad_y, x):
            y = reference.lp_pool_forward(x, *window, grad_y.shape[2:])
            return reference.lp_pool_backward(grad_y, x, y, *window)

        grads = by_reference(gradient, ctx.saved_tensors, ctx.needs_input_grad[:2], grad_grad_x)
        return *grads, None, None, None


def lp_pool(
    axes: int,
    x: torch.Tensor,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    ceil_mode: bool,
    backend: str | None,
) -> torch.Tensor:
    name = f"lp_pool{axes}d"
    checks.tensor(name, "input", x)
    if isinstance(norm_type, bool) or not isinstance(norm_type, int | float):
        raise TypeError(f"{name}(): argument 'norm_type' must be float, not {norm_type!r}")
    if math.isinf(norm_type):  # the limit is the largest magnitude, or the smallest
        sign = 1 if norm_type > 0 else -1
        window = kernel_size, stride, 0, 1, ceil_mode, False
        return sign * max_pool(axes, sign * x.abs(), *window, backend)
    # Other powers than 1 and 2 are chosen apart: they have no kernels of their own on a CPU.
    kind = "pool_lp" if norm_type in (1, 2) else "pool_lp_any"
    chosen = backends.choose(kind, backend, x)
    if chosen == "aten":
        pool = getattr(torch.nn.functional, name)
        return pool(x, norm_type, kernel_size, stride, ceil_mode)
    if norm_type == 0:
        raise ZeroDivisionError(f"{name}: norm_type must not be zero")
    window = windows(name, axes, kernel_size, stride, 0, 1)
    batch = batched(name, x, axes)
    output_size = outputs(name, batch, window, ceil_mode)
    arguments = (float(norm_type), *window[:2])
    if needs_grad(x):
        y = _LpPool.apply(batch, arguments, output_size, chosen)
    else:
        y = _forward(batch, *arguments, output_size, chosen)
    return y.squeeze(0) if x.ndim == axes + 1 else y
