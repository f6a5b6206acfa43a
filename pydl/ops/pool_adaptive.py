"""Adaptive pooling over one to three axes and pyramid pooling: checks, autograd, registered
operators."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, overload

import torch
from torch.nn import functional

from pydl import backends, layout
from pydl.aten import pool_adaptive as aten
from pydl.contract.call import Pair
from pydl.contract.pool_adaptive import (
    MOST_LEVELS,
    AdaptiveAvgPoolBackward,
    AdaptiveAvgPoolForward,
    AdaptiveMaxPoolBackward,
    AdaptiveMaxPoolForward,
    PyramidPoolBackward,
    PyramidPoolForward,
    flat_from_offset,
    index_form,
    split,
)
from pydl.ops import checks
from pydl.ops import pool as windows
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.registry import operator
from pydl.ops.window import by_pytorch, refused, unbatched
from pydl.shapes import bins, bins_there

_AVERAGES: tuple[Callable[..., torch.Tensor], ...] = (
    None,
    functional.adaptive_avg_pool1d,
    functional.adaptive_avg_pool2d,
    functional.adaptive_avg_pool3d,
)
_MAX: tuple[Callable[..., Any], ...] = (
    None,
    functional.adaptive_max_pool1d,
    functional.adaptive_max_pool2d,
    functional.adaptive_max_pool3d,
)
_avg_forward = operator(AdaptiveAvgPoolForward)
_avg_backward = operator(AdaptiveAvgPoolBackward)
_max_forward = operator(AdaptiveMaxPoolForward)
_max_backward = operator(AdaptiveMaxPoolBackward)
_pyramid_forward = operator(PyramidPoolForward)
_pyramid_backward = operator(PyramidPoolBackward)

Bins = int | Sequence[int | None] | None


class _AvgPool(Function):
    @staticmethod
    def forward(x, output_size, channels_last, backend):
        return _avg_forward(x, output_size, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, *ctx.arguments = inputs
        ctx.input_size = tuple(x.shape[2:])

    @staticmethod
    def backward(ctx, grad_y):
        grad_x = apply(_AvgPoolGrad, grad_y, ctx.input_size, *ctx.arguments[1:])
        return grad_x, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_AvgPool, tangent, *ctx.arguments)


class _AvgPoolGrad(Function):
    """Linear in grad_y and the transpose of the pooling, so its derivative is the pooling."""

    @staticmethod
    def forward(grad_y, input_size, channels_last, backend):
        return _avg_backward(grad_y, input_size, channels_last, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, *ctx.arguments = inputs
        ctx.output_size = tuple(grad_y.shape[2:])

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad = apply(_AvgPool, grad_grad_x, ctx.output_size, *ctx.arguments[1:])
        return grad, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_AvgPoolGrad, tangent, *ctx.arguments)


class _MaxPool(Function):
    @staticmethod
    def forward(x, output_size, index, backend):
        return _max_forward(x, output_size, index, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, _, _, backend = inputs
        _, index = output
        ctx.mark_non_differentiable(index)
        ctx.set_materialize_grads(False)
        save(ctx, output, index)
        ctx.arguments = tuple(x.shape[2:]), backend

    @staticmethod
    def backward(ctx, grad_y, _):
        grad_x = None
        if grad_y is not None:
            grad_x = apply(_MaxPoolGrad, grad_y, *ctx.saved_tensors, *ctx.arguments)
        return grad_x, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return _gathered(tangent, *ctx.saved_tensors, ctx.arguments[0]), None


class _MaxPoolGrad(Function):
    """Linear in grad_y: it scatters to the places that index names, so its derivative gathers from
    them."""

    @staticmethod
    def forward(grad_y, index, input_size, backend):
        return _max_backward(grad_y, index, input_size, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, *ctx.arguments = inputs
        save(ctx, output, index)

    @staticmethod
    def backward(ctx, grad_grad_x):
        return _gathered(grad_grad_x, *ctx.saved_tensors, ctx.arguments[0]), None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_MaxPoolGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


def _gathered(maps: torch.Tensor, index: torch.Tensor, input_size: Sequence[int]) -> torch.Tensor:
    """What lies in ``maps`` (N, C, *input_size) at the places that the index of a maximum names."""
    flat = index
    if index.dtype == torch.uint8:
        flat = flat_from_offset(index, input_size, index.shape[2:])
    gathered = layout.planes(maps).gather(2, layout.planes(flat))
    return gathered.reshape(index.shape)


class _Pyramid(Function):
    @staticmethod
    def forward(x, levels, kind, index, backend):
        return _pyramid_forward(x, levels, kind, index, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, levels, kind, _, backend = inputs
        _, index = output
        ctx.mark_non_differentiable(index)
        ctx.set_materialize_grads(False)
        save(ctx, output, index)
        ctx.arguments = tuple(x.shape[1:]), levels, kind, layout.channels_last(x), backend

    @staticmethod
    def backward(ctx, grad_y, _):
        grad_x = None
        if grad_y is not None:
            grad_x = apply(_PyramidGrad, grad_y, *ctx.saved_tensors, *ctx.arguments)
        return grad_x, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return _pyramid_at(tangent, *ctx.saved_tensors, *ctx.arguments), None


class _PyramidGrad(Function):
    """Linear in grad_y; its derivative is the pyramid of averages, or what lies where the maxima
    were."""

    @staticmethod
    def forward(grad_y, index, input_size, levels, kind, channels_last, backend):
        return _pyramid_backward(grad_y, index, input_size, levels, kind, channels_last, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, *ctx.arguments = inputs
        save(ctx, output, index)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad = _pyramid_at(grad_grad_x, *ctx.saved_tensors, *ctx.arguments)
        return grad, None, None, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_PyramidGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


def _pyramid_at(
    maps: torch.Tensor,
    index: torch.Tensor,
    input_size: Sequence[int],
    levels: Sequence[int],
    kind: str,
    channels_last: bool,
    backend: str,
) -> torch.Tensor:
    """The pyramid of averages of ``maps`` (N, *input_size), or what lies in them where the maxima
    were."""
    if kind == "average":
        return apply(_Pyramid, maps, levels, kind, "none", backend)[0]
    channels, *size = input_size
    parts, first = [], 0
    for level in split(levels, len(size)):
        last = first + channels * math.prod(level)
        taken = index[:, first:last].reshape(-1, channels, *level)
        found = _gathered(maps, taken, size)
        parts.append(found.reshape(len(found), last - first))
        first = last
    return torch.cat(parts, 1)


def _batched(name: str, x: torch.Tensor, axes: int, first: int) -> torch.Tensor:
    """The input as (N, C, spatial...), its axes checked to be there and, from ``first`` on, not to
    be empty."""
    checks.rank(name, x, axes)
    bins_there(name, x, first)
    batch = (x if x.ndim == axes + 2 else x.unsqueeze(0)).resolve_neg()
    batch = as_autocast(name, batch)
    return batch.unsqueeze(2) if axes == 1 else batch  # a line is pooled as a map with one row


def _whole(size: Sequence[int], bins: Sequence[int]) -> list[int] | None:
    """The window whose pooling, with a stride of itself, has these bins: none where they are
    unequal."""
    if any(n % out for n, out in zip(size, bins, strict=True)):
        return None
    return [n // out for n, out in zip(size, bins, strict=True)]


def kind_of_average(output_size: object) -> str:
    """As what the dispatch table decides on an average. A global one is a mean, which is bound by
    memory as it is."""
    sizes = output_size if isinstance(output_size, tuple | list) else (output_size,)
    return "pool_global" if all(type(out) is int and out == 1 for out in sizes) else "pool_adaptive"


def adaptive_avg_pool(
    axes: int,
    x: torch.Tensor,
    output_size: Bins,
    backend: str | None,
) -> torch.Tensor:
    name = f"adaptive_avg_pool{axes}d"
    checks.tensor(name, "input", x)
    kind, function = kind_of_average(output_size), "adaptive_avg_pool_forward"
    backend = backends.choose(kind, backend, x, function, arguments=(output_size,))
    if backend == "aten":
        return by_pytorch(_AVERAGES[axes], x, output_size)
    try:
        size = bins(name, x, axes, output_size)
        batch = _batched(name, x, axes, 1 if axes == 3 else -axes)
    except (TypeError, RuntimeError) as error:
        raise refused(error, _AVERAGES[axes], x, output_size) from None
    if 0 in size:  # nothing to compute, and an error where a gradient is asked for
        return _AVERAGES[axes](x, size)
    size = [1, *size] if axes == 1 else size
    whole = set(size) == {1}  # for which PyTorch takes a mean, whose gradient is contiguous
    if axes == 3 and not whole:
        batch = layout.contiguous(batch)  # as PyTorch, of whose other volumes none is channels last
    last = not whole and layout.channels_last(batch)
    kernel = _whole(batch.shape[2:], size)
    if kernel is not None:
        still = [0] * len(size)
        y = windows.average(batch, (kernel, kernel, still), size, (True, 0), last, backend)
    elif needs_grad(batch):
        y = _AvgPool.apply(batch, size, last, backend)
    else:
        y = _avg_forward(batch, size, backend)
    return unbatched(y, x, axes)


@overload
def adaptive_max_pool(
    axes: int,
    x: torch.Tensor,
    output_size: Bins,
    return_indices: Literal[True],
    backend: str | None,
) -> Pair: ...
@overload
def adaptive_max_pool(
    axes: int, x: torch.Tensor, output_size: Bins, return_indices: bool, backend: str | None
) -> torch.Tensor | Pair: ...
def adaptive_max_pool(
    axes: int,
    x: torch.Tensor,
    output_size: Bins,
    return_indices: bool,
    backend: str | None,
) -> torch.Tensor | Pair:
    name = f"adaptive_max_pool{axes}d"
    checks.tensor(name, "input", x)
    function, arguments = "adaptive_max_pool_forward", (output_size, return_indices)
    backend = backends.choose("pool_adaptive", backend, x, function, arguments=arguments)
    if backend == "aten":
        return by_pytorch(_MAX[axes], x, output_size, return_indices)
    try:
        size = bins(name, x, axes, output_size)
        batch = _batched(name, x, axes, 1)
    except (TypeError, RuntimeError) as error:
        raise refused(error, _MAX[axes], x, output_size, return_indices) from None
    if 0 in size:  # nothing to compute, and an error where a gradient is asked for
        return _MAX[axes](x, size, return_indices)
    if axes == 3:
        batch = layout.contiguous(batch)  # as PyTorch, of whose volumes none is channels last
    size = [1, *size] if axes == 1 else size
    kernel = _whole(batch.shape[2:], size)
    if kernel is not None:
        window = kernel, kernel, [0] * len(size), [1] * len(size)
        results = windows.maximum(batch, window, size, return_indices, backend)
    elif needs_grad(batch):
        form = "flat" if return_indices else index_form(batch.shape[2:], [size])
        results = _MaxPool.apply(batch, size, form, backend)
    else:
        results = _max_forward(batch, size, "flat" if return_indices else "none", backend)
    y, index = results
    y = unbatched(y, x, axes)
    return (y, unbatched(index, x, axes)) if return_indices else y


def pyramid_pool(
    axes: int,
    x: torch.Tensor,
    levels: Sequence[int | Sequence[int]],
    kind: str,
    backend: str | None,
) -> torch.Tensor:
    name = "spatial_pyramid_pool"
    checks.tensor(name, "input", x)
    if kind not in ("max", "average"):
        raise ValueError(f"{name}: kind must be 'max' or 'average', got {kind!r}")
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise TypeError(f"{name}(): argument 'levels' must be tuple of ints, not {levels!r}")
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise ValueError(f"{name}: expected 1 to {MOST_LEVELS} levels, got {len(levels)}")
    each = [checks.axes(name, "levels", level, axes, least=1) for level in levels]
    function, arguments = "pyramid_pool_forward", (levels, kind)
    backend = backends.choose("pool_pyramid", backend, x, function, arguments=arguments)
    batch = _batched(name, x, axes, -axes - 1)
    flat = [bins for level in each for bins in level]
    if backend == "aten":
        y, _ = aten.pyramid_pool_forward(PyramidPoolForward(batch, flat, kind, "none"))
    elif needs_grad(batch):
        index = index_form(batch.shape[2:], each) if kind == "max" else "none"
        y, _ = _Pyramid.apply(batch, flat, kind, index, backend)
    else:
        y, _ = _pyramid_forward(batch, flat, kind, "none", backend)
    return y.squeeze(0) if x.ndim == axes + 1 else y
