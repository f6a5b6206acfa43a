"""Power-average pooling over one to three axes: checks, autograd, registered operators."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from pydl import backends, layout
from pydl.contract.pool_lp import LpPoolBackward, LpPoolForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, save
from pydl.ops.pool import max_pool
from pydl.ops.registry import operator
from pydl.ops.window import batched, by_pytorch, of_maps, refused, unbatched
from pydl.reference import pool_lp as reference
from pydl.shapes import pooled_size, windows

_POOLS = (None, functional.lp_pool1d, functional.lp_pool2d, functional.lp_pool3d)
_forward = operator(LpPoolForward)
_backward = operator(LpPoolBackward)


class _LpPool(Function):
    """Gives the result and a copy of it for the backward: the first is the caller's, to change in
    place as PyTorch's allows."""

    @staticmethod
    def forward(x, window, output_size, backend):
        y = _forward(x, *window, output_size, backend)
        return y, y.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.window, _, ctx.backend = inputs
        _, kept = output
        ctx.mark_non_differentiable(kept)
        ctx.set_materialize_grads(False)
        save(ctx, output, x, kept)

    @staticmethod
    def backward(ctx, grad_y, _):
        grad_x = None
        if grad_y is not None:
            x, kept = ctx.saved_tensors
            grad_x = apply(_LpPoolGrad, grad_y, x, kept, ctx.window, ctx.backend)
            grad_x = layout.as_elementwise(grad_x, grad_x)
        return grad_x, None, None, None


class _LpPoolGrad(Function):
    """The gradient as a function of grad_y and x; its derivative is that of the reference's
    formulas, y among them."""

    @staticmethod
    def forward(grad_y, x, y, window, backend):
        return _backward(grad_y, x, y, *window, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, x, _, ctx.window, _ = inputs
        save(ctx, output, grad_y, x)

    @staticmethod
    def backward(ctx, grad_grad_x):
        window = ctx.window

        def gradient(grad_y, x):
            y = reference.lp_pool_forward(LpPoolForward(x, *window, grad_y.shape[2:]))
            return reference.lp_pool_backward(LpPoolBackward(grad_y, x, y, *window))

        grads = by_reference(gradient, ctx.saved_tensors, ctx.needs_input_grad[:2], grad_grad_x)
        return *grads, None, None, None


def _norm_type(name: str, norm_type: float) -> float:
    number = isinstance(norm_type, int | float | torch.SymInt | torch.SymFloat)
    if not number and (
        isinstance(norm_type, str | torch.Tensor) or not hasattr(norm_type, "__float__")
    ):
        raise TypeError(f"{name}(): argument 'norm_type' must be float, not {norm_type!r}")
    if norm_type == 0:
        raise ZeroDivisionError("float division by zero")
    return float(norm_type)


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
    # The limits are the largest magnitude and the smallest.
    if norm_type in (math.inf, -math.inf):
        sign = 1 if norm_type > 0 else -1
        largest = sign * x.abs()
        return sign * max_pool(axes, largest, kernel_size, stride, 0, 1, ceil_mode, False, backend)
    # Other powers than 1 and 2 are chosen apart: they have no kernels of their own on a CPU.
    kind = "pool_lp" if norm_type in (1, 2) else "pool_lp_any"
    arguments = norm_type, kernel_size, stride, ceil_mode
    backend = backends.choose(kind, backend, x, "lp_pool_forward", arguments=arguments)
    if backend == "aten":
        return by_pytorch(_POOLS[axes], x, *arguments)
    try:
        power = _norm_type(name, norm_type)
        window = windows(name, axes, kernel_size, stride, 0, 1)
        batch = batched(name, x, axes)
        output_size = pooled_size(name, batch, window, ceil_mode)
    except (TypeError, RuntimeError, ZeroDivisionError) as error:
        raise refused(error, _POOLS[axes], x, *arguments) from None
    batch = as_autocast(name, batch)
    if axes == 3 or 0 in batch.stride():
        # As PyTorch, of whose averages of volumes none are channels last, and which pools powers,
        # of which none are expanded.
        batch = layout.contiguous(batch) if axes == 3 else batch.clone()
    batch, (kernel, steps, *_), output_size = of_maps(batch, window, output_size)
    constants = power, kernel, steps
    if needs_grad(batch):
        y, _ = _LpPool.apply(batch, constants, output_size, backend)
    else:
        y = _forward(batch, *constants, output_size, backend)
    return unbatched(layout.as_elementwise(y, y), x, axes)
