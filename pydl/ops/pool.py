"""Max and average pooling over one to three axes: checks, autograd, registered operators."""

import math
from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.indices import flat_from_offset
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import needs_grad
from pydl.ops.registry import operator
from pydl.ops.window import batched, outputs, windows

_WINDOW = "int[] kernel_size, int[] stride, int[] padding"
_INDEX_DTYPE = {"offset": torch.uint8, "flat": torch.int64}


def _max_forward_fake(x, kernel_size, stride, padding, dilation, output_size, index, backend):
    y = layout.resized(x, output_size)
    if index == "none":
        return y, layout.empty((0,), x, dtype=torch.uint8)
    return y, layout.resized(x, output_size, dtype=_INDEX_DTYPE[index])


_max_forward = operator(
    f"max_pool_forward(Tensor x, {_WINDOW}, int[] dilation, SymInt[] output_size, str index, "
    "str backend)"
    " -> (Tensor, Tensor)",
    _max_forward_fake,
)
_max_backward = operator(
    f"max_pool_backward(Tensor grad_y, Tensor index, SymInt[] input_size, {_WINDOW}, int[] "
    "dilation, str backend) -> Tensor",
    lambda grad_y, index, input_size, *_: layout.resized(index, input_size, dtype=grad_y.dtype),
)
_AVERAGE = f"{_WINDOW}, SymInt[] output_size, bool count_include_pad, int divisor, str backend"
_avg_forward = operator(
    f"avg_pool_forward(Tensor x, {_AVERAGE}) -> Tensor",
    lambda x, kernel_size, stride, padding, output_size, *_: layout.resized(x, output_size),
)
_avg_backward = operator(
    f"avg_pool_backward(Tensor grad_y, SymInt[] input_size, {_WINDOW}, bool count_include_pad, "
    "int divisor, str backend)"
    " -> Tensor",
    lambda grad_y, input_size, *_: layout.resized(grad_y, input_size),
)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, window, output_size, index, return_index, backend):
        y, taken = _max_forward(x, *window, output_size, index, backend)
        ctx.save_for_backward(taken)
        ctx.arguments = tuple(x.shape[2:]), window, backend
        if not return_index:
            return y
        ctx.mark_non_differentiable(taken)
        ctx.set_materialize_grads(False)
        return y, taken

    @staticmethod
    def backward(ctx, grad_y, _=None):
        grad_x = None
        if grad_y is not None:
            (index,) = ctx.saved_tensors
            grad_x = apply(_MaxPoolGrad, grad_y, index, *ctx.arguments)
        return grad_x, None, None, None, None, None


class _MaxPoolGrad(torch.autograd.Function):
    """Linear in grad_y: it scatters to the places that index names, so its derivative gathers from
    them."""

    @staticmethod
    def forward(ctx, grad_y, index, input_size, window, backend):
        ctx.save_for_backward(index)
        ctx.arguments = input_size, window
        return _max_backward(grad_y, index, input_size, *window, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        (index,) = ctx.saved_tensors
        flat = index
        if index.dtype == torch.uint8:
            flat = flat_from_offset(index, *ctx.arguments[:1], *ctx.arguments[1])
        gathered = grad_grad_x.flatten(2).gather(2, flat.flatten(2)).reshape(index.shape)
        return gathered, None, None, None, None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, window, output_size, divide, backend):
        ctx.arguments = tuple(x.shape[2:]), window, divide, backend
        return _avg_forward(x, *window, output_size, *divide, backend)

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_AvgPoolGrad, grad_y, *ctx.arguments), None, None, None, None


class _AvgPoolGrad(torch.autograd.Function):
    """Linear in grad_y and the transpose of the pooling, so its derivative is the pooling."""

    @staticmethod
    def forward(ctx, grad_y, input_size, window, divide, backend):
        ctx.arguments = window, tuple(grad_y.shape[2:]), divide, backend
        return _avg_backward(grad_y, input_size, *window, *divide, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        return apply(_AvgPool, grad_grad_x, *ctx.arguments), None, None, None, None


def maximum(
    batch: torch.Tensor,
    window: Sequence[Sequence[int]],
    output_size: Sequence[int],
    return_indices: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Max pooling with checked arguments; the index is PyTorch's where it is to be returned."""
    wants_grad = needs_grad(batch)
    index = "none" if not wants_grad else "offset" if math.prod(window[0]) <= 256 else "flat"
    index = "flat" if return_indices else index
    if not wants_grad:
        return _max_forward(batch, *window, output_size, index, backend)
    results = _MaxPool.apply(batch, window, output_size, index, return_indices, backend)
    return results if return_indices else (results, None)


def average(
    batch: torch.Tensor,
    window: Sequence[Sequence[int]],
    output_size: Sequence[int],
    divide: tuple[bool, int],
    backend: str,
) -> torch.Tensor:
    """Average pooling with checked arguments."""
    if needs_grad(batch):
        return _AvgPool.apply(batch, window, output_size, divide, backend)
    return _avg_forward(batch, *window, output_size, *divide, backend)


def max_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
    return_indices: bool,
    backend: str | None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    name = f"max_pool{axes}d"
    checks.tensor(name, "input", x)
    backend = backends.choose("pool3d" if axes == 3 else "pool", backend, x, "max_pool_forward")
    if backend == "aten":
        pool = getattr(torch.nn.functional, name)
        return pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    window = windows(name, axes, kernel_size, stride, padding, dilation)
    batch = batched(name, x, axes)
    output_size = outputs(name, batch, window, ceil_mode)
    y, taken = maximum(batch, window, output_size, return_indices, backend)
    if x.ndim == axes + 1:
        y, taken = y.squeeze(0), taken.squeeze(0) if return_indices else None
    return (y, taken) if return_indices else y


def avg_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    backend: str | None,
) -> torch.Tensor:
    name = f"avg_pool{axes}d"
    checks.tensor(name, "input", x)
    backend = backends.choose("pool3d" if axes == 3 else "pool", backend, x, "avg_pool_forward")
    if backend == "aten":
        pool = getattr(torch.nn.functional, name)
        # PyTorch's 1-D average takes no divisor.
        rest = () if axes == 1 else (divisor_override,)
        return pool(x, kernel_size, stride, padding, ceil_mode, count_include_pad, *rest)
    if divisor_override == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")
    window = windows(name, axes, kernel_size, stride, padding, 1)
    batch = batched(name, x, axes)
    output_size = outputs(name, batch, window, ceil_mode)
    divide = bool(count_include_pad), divisor_override or 0
    y = average(batch, window[:3], output_size, divide, backend)
    return y.squeeze(0) if x.ndim == axes + 1 else y
