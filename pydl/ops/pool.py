"""Max and average pooling over one to three axes: checks, autograd, registered operators."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch.nn import functional

from pydl import backends, layout
from pydl.contract.call import Pair
from pydl.contract.pool import (
    AvgPoolBackward,
    AvgPoolForward,
    MaxPoolBackward,
    MaxPoolForward,
    flat_from_offset,
)
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.registry import operator
from pydl.ops.window import batched, by_pytorch, of_maps, refused, unbatched
from pydl.shapes import Window, divisor, pooled_size, windows

_MAX: tuple[Callable[..., Any], ...] = (
    None,
    functional.max_pool1d,
    functional.max_pool2d,
    functional.max_pool3d,
)
_AVERAGES: tuple[Callable[..., torch.Tensor], ...] = (
    None,
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.avg_pool3d,
)
_max_forward = operator(MaxPoolForward)
_max_backward = operator(MaxPoolBackward)
_avg_forward = operator(AvgPoolForward)
_avg_backward = operator(AvgPoolBackward)

Ints = int | Sequence[int]


class _MaxPool(Function):
    @staticmethod
    def forward(x, window, output_size, index, backend):
        return _max_forward(x, *window, output_size, index, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, window, _, _, backend = inputs
        _, index = output
        ctx.mark_non_differentiable(index)
        ctx.set_materialize_grads(False)
        save(ctx, output, index)
        ctx.arguments = tuple(x.shape[2:]), window, backend

    @staticmethod
    def backward(ctx, grad_y, _):
        grad_x = None
        if grad_y is not None:
            grad_x = apply(_MaxPoolGrad, grad_y, *ctx.saved_tensors, *ctx.arguments)
        return grad_x, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return _gathered(tangent, *ctx.saved_tensors, *ctx.arguments[:2]), None


class _MaxPoolGrad(Function):
    """Linear in grad_y: it scatters to the places that index names, so its derivative gathers from
    them."""

    @staticmethod
    def forward(grad_y, index, input_size, window, backend):
        return _max_backward(grad_y, index, input_size, *window, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, *ctx.arguments = inputs
        save(ctx, output, index)

    @staticmethod
    def backward(ctx, grad_grad_x):
        gathered = _gathered(grad_grad_x, *ctx.saved_tensors, *ctx.arguments[:2])
        return gathered, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_MaxPoolGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


def _gathered(
    maps: torch.Tensor, index: torch.Tensor, input_size: Sequence[int], window: Window
) -> torch.Tensor:
    """What lies in ``maps`` (N, C, *input_size) at the places that the index of a maximum names."""
    flat = index
    if index.dtype == torch.uint8:
        flat = flat_from_offset(index, input_size, *window)
    gathered = layout.planes(maps).gather(2, layout.planes(flat))
    return gathered.reshape(index.shape)


class _AvgPool(Function):
    @staticmethod
    def forward(x, window, output_size, divide, channels_last, backend):
        return _avg_forward(x, *window, output_size, *divide, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *ctx.arguments = inputs
        ctx.input_size = tuple(x.shape[2:])

    @staticmethod
    def backward(ctx, grad_y):
        window, _, *rest = ctx.arguments
        grad_x = apply(_AvgPoolGrad, grad_y, ctx.input_size, window, *rest)
        return grad_x, None, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_AvgPool, tangent, *ctx.arguments)


class _AvgPoolGrad(Function):
    """Linear in grad_y and the transpose of the pooling, so its derivative is the pooling."""

    @staticmethod
    def forward(grad_y, input_size, window, divide, channels_last, backend):
        return _avg_backward(grad_y, input_size, *window, *divide, channels_last, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, *ctx.arguments = inputs
        ctx.output_size = tuple(grad_y.shape[2:])

    @staticmethod
    def backward(ctx, grad_grad_x):
        _, window, *rest = ctx.arguments
        grad = apply(_AvgPool, grad_grad_x, window, ctx.output_size, *rest)
        return grad, None, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_AvgPoolGrad, tangent, *ctx.arguments)


def maximum(
    batch: torch.Tensor,
    window: Window,
    output_size: Sequence[int],
    return_indices: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Max pooling with checked arguments; the index is PyTorch's where it is to be returned."""
    wants_grad = needs_grad(batch)
    index = "none" if not wants_grad else "offset" if math.prod(window[0]) <= 256 else "flat"
    index = "flat" if return_indices else index
    if wants_grad:
        return _MaxPool.apply(batch, window, output_size, index, backend)
    return _max_forward(batch, *window, output_size, index, backend)


def average(
    batch: torch.Tensor,
    window: Sequence[Sequence[int]],
    output_size: Sequence[int],
    divide: tuple[bool, int],
    channels_last: bool,
    backend: str,
) -> torch.Tensor:
    """Average pooling with checked arguments.

    Args:
        channels_last: how the gradient is to lie.
    """
    if needs_grad(batch):
        return _AvgPool.apply(batch, window, output_size, divide, channels_last, backend)
    return _avg_forward(batch, *window, output_size, *divide, backend)


@overload
def max_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: Literal[True],
    backend: str | None,
) -> Pair: ...
@overload
def max_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: Literal[False],
    backend: str | None,
) -> torch.Tensor: ...
@overload
def max_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: bool,
    backend: str | None,
) -> torch.Tensor | Pair: ...
def max_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: Ints,
    stride: Ints | None,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
    return_indices: bool,
    backend: str | None,
) -> torch.Tensor | Pair:
    name = f"max_pool{axes}d"
    checks.tensor(name, "input", x)
    arguments = kernel_size, stride, padding, dilation, ceil_mode, return_indices
    kind = "pool3d" if axes == 3 else "pool"
    backend = backends.choose(kind, backend, x, "max_pool_forward", arguments=arguments)
    if backend == "aten":
        return by_pytorch(_MAX[axes], x, *arguments)
    try:
        window = windows(name, axes, kernel_size, stride, padding, dilation)
        batch = batched(name, x, axes)
        output_size = pooled_size(name, batch, window, ceil_mode)
    except (TypeError, RuntimeError) as error:
        raise refused(error, _MAX[axes], x, *arguments) from None
    if not return_indices:  # with them its casts do not reach the operator
        batch = as_autocast(name, batch)
    # What PyTorch makes of one volume is channels last where that is, but not its gradient.
    last = axes == 3 and x.ndim == 4 and not batch.is_contiguous()
    last = last and batch.is_contiguous(memory_format=torch.channels_last_3d)
    batch = batch.contiguous() if last else batch
    batch, window, output_size = of_maps(batch, window, output_size)
    if axes == 1 and not return_indices and batch.device.type == "cpu" and not needs_grad(batch):
        batch = layout.contiguous(batch)  # PyTorch has a kernel of its own for these
    both = maximum(batch, window, output_size, return_indices, backend)
    results: Sequence[torch.Tensor] = both if return_indices else both[:1]
    if last:
        results = [layout.dense(y, torch.channels_last_3d) for y in results]
    y, *index = (unbatched(result, x, axes) for result in results)
    return (y, index[0]) if return_indices else y


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
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    name = f"avg_pool{axes}d"
    checks.tensor(name, "input", x)
    # PyTorch's 1-D average takes no divisor.
    rest = () if axes == 1 else (divisor_override,)
    arguments = kernel_size, stride, padding, ceil_mode, count_include_pad, *rest
    if out is not None:
        return _into(out, name, x, arguments, backend)
    kind = "pool3d" if axes == 3 else "pool"
    backend = backends.choose(kind, backend, x, "avg_pool_forward", arguments=arguments)
    if backend == "aten":
        return by_pytorch(_AVERAGES[axes], x, *arguments)
    try:
        counted = divisor(name, divisor_override)
        window = windows(name, axes, kernel_size, stride, padding, 1)
        batch = batched(name, x, axes)
        output_size = pooled_size(name, batch, window, ceil_mode)
    except (TypeError, RuntimeError) as error:
        raise refused(error, _AVERAGES[axes], x, *arguments) from None
    batch = as_autocast(name, batch)
    if axes == 3:  # PyTorch's averages of volumes are never channels last
        batch = layout.contiguous(batch)
    batch, window, output_size = of_maps(batch, window, output_size)
    divide = bool(count_include_pad), counted
    last = layout.channels_last(batch)
    y = average(batch, window[:3], output_size, divide, last, backend)
    return unbatched(y, x, axes)


def _into(
    out: torch.Tensor, name: str, x: torch.Tensor, arguments: tuple, backend: str | None
) -> torch.Tensor:
    """An average written into ``out``, which is PyTorch's own operator's alone."""
    asked = backends.asked(backend)
    if asked not in ("auto", "aten"):
        raise RuntimeError(f"backend {asked!r} does not serve out=; 'auto' and 'aten' do")
    return getattr(functional, name)(x, *arguments, out=out)
