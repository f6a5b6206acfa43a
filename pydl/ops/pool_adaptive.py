"""Adaptive pooling over one to three axes and pyramid pooling: checks, autograd, registered
operators."""

import math
from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.bins import MOST_LEVELS, flat_from_offset, index_form, split
from pydl.ops import checks
from pydl.ops import pool as windows
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import needs_grad
from pydl.ops.registry import operator

_INDEX_DTYPE = {"offset": torch.uint8, "flat": torch.int64}
_PYRAMID = "int[] levels, str kind"


def _indexed(y, like, index, make):
    if index == "none":
        return y, layout.empty((0,), like, dtype=torch.uint8)
    return y, make(dtype=_INDEX_DTYPE[index])


_avg_forward = operator(
    "adaptive_avg_pool_forward(Tensor x, SymInt[] output_size, str backend) -> Tensor",
    lambda x, output_size, _: layout.resized(x, output_size),
)
_avg_backward = operator(
    "adaptive_avg_pool_backward(Tensor grad_y, SymInt[] input_size, str backend) -> Tensor",
    lambda grad_y, input_size, _: layout.resized(grad_y, input_size),
)
_max_forward = operator(
    "adaptive_max_pool_forward(Tensor x, SymInt[] output_size, str index, str backend)"
    " -> (Tensor, Tensor)",
    lambda x, output_size, index, _: _indexed(
        layout.resized(x, output_size),
        x,
        index,
        lambda dtype: layout.resized(x, output_size, dtype=dtype),
    ),
)
_max_backward = operator(
    "adaptive_max_pool_backward(Tensor grad_y, Tensor index, SymInt[] input_size, str backend)"
    " -> Tensor",
    lambda grad_y, index, input_size, _: layout.resized(index, input_size, dtype=grad_y.dtype),
)
_pyramid_forward = operator(
    f"pyramid_pool_forward(Tensor x, {_PYRAMID}, str index, str backend) -> (Tensor, Tensor)",
    lambda x, levels, kind, index, _: _indexed(
        layout.pyramid(x, levels),
        x,
        index,
        lambda dtype: layout.pyramid(x, levels, dtype=dtype),
    ),
)
_pyramid_backward = operator(
    f"pyramid_pool_backward(Tensor grad_y, Tensor index, SymInt[] input_size, {_PYRAMID}, "
    "bool channels_last, str backend) -> Tensor",
    lambda grad_y, index, input_size, levels, kind, channels_last, _: layout.pyramid_input(
        grad_y, input_size, channels_last
    ),
)


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, output_size, backend):
        ctx.arguments = tuple(x.shape[2:]), backend
        return _avg_forward(x, output_size, backend)

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_AvgPoolGrad, grad_y, *ctx.arguments), None, None


class _AvgPoolGrad(torch.autograd.Function):
    """Linear in grad_y and the transpose of the pooling, so its derivative is the pooling."""

    @staticmethod
    def forward(ctx, grad_y, input_size, backend):
        ctx.arguments = tuple(grad_y.shape[2:]), backend
        return _avg_backward(grad_y, input_size, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        return apply(_AvgPool, grad_grad_x, *ctx.arguments), None, None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, output_size, index, return_index, backend):
        y, taken = _max_forward(x, output_size, index, backend)
        ctx.save_for_backward(taken)
        ctx.arguments = tuple(x.shape[2:]), backend
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
        return grad_x, None, None, None, None


class _MaxPoolGrad(torch.autograd.Function):
    """Linear in grad_y: it scatters to the places that index names, so its derivative gathers from
    them."""

    @staticmethod
    def forward(ctx, grad_y, index, input_size, backend):
        ctx.save_for_backward(index)
        ctx.input_size = input_size
        return _max_backward(grad_y, index, input_size, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        (index,) = ctx.saved_tensors
        return _gathered(grad_grad_x, index, ctx.input_size), None, None, None


def _gathered(maps: torch.Tensor, index: torch.Tensor, input_size: Sequence[int]) -> torch.Tensor:
    """What lies in ``maps`` (N, C, *input_size) at the places that the index of a maximum names."""
    flat = index
    if index.dtype == torch.uint8:
        flat = flat_from_offset(index, input_size, index.shape[2:])
    return maps.flatten(2).gather(2, flat.flatten(2)).reshape(index.shape)


class _Pyramid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, levels, kind, index, backend):
        y, taken = _pyramid_forward(x, levels, kind, index, backend)
        ctx.save_for_backward(taken)
        last = layout.memory_format(x) is not torch.contiguous_format
        ctx.arguments = tuple(x.shape[1:]), levels, kind, last, backend
        return y

    @staticmethod
    def backward(ctx, grad_y):
        (index,) = ctx.saved_tensors
        return apply(_PyramidGrad, grad_y, index, *ctx.arguments), None, None, None, None


class _PyramidGrad(torch.autograd.Function):
    """Linear in grad_y; its derivative is the pyramid of averages, or what lies where the maxima
    were."""

    @staticmethod
    def forward(ctx, grad_y, index, input_size, levels, kind, channels_last, backend):
        ctx.save_for_backward(index)
        ctx.arguments = input_size, levels, kind, backend
        return _pyramid_backward(grad_y, index, input_size, levels, kind, channels_last, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        (channels, *size), levels, kind, backend = ctx.arguments
        if kind == "average":
            grad = apply(_Pyramid, grad_grad_x, levels, kind, "none", backend)
            return grad, None, None, None, None, None, None
        (index,) = ctx.saved_tensors
        parts, first = [], 0
        for level in split(levels, len(size)):
            last = first + channels * math.prod(level)
            taken = index[:, first:last].reshape(-1, channels, *level)
            parts.append(_gathered(grad_grad_x, taken, size).flatten(1))
            first = last
        return torch.cat(parts, 1), None, None, None, None, None, None


def _output_size(
    name: str, x: torch.Tensor, axes: int, output_size: int | Sequence[int | None] | None
) -> list[int]:
    """One number of bins an axis, checked; None is the input's size."""
    many = isinstance(output_size, Sequence)
    given = list(output_size) if many else [output_size] * axes
    if len(given) == 1:
        given = given * axes
    if len(given) != axes:
        raise RuntimeError(
            f"{name}: output_size must either be a single int, or a tuple of {axes} ints, "
            f"got {len(given)} values"
        )
    sizes = [n if out is None else out for n, out in zip(x.shape[-axes:], given, strict=True)]
    return checks.axes(name, "output_size", sizes, axes, least=0)


def _batched(name: str, x: torch.Tensor, axes: int) -> torch.Tensor:
    """The input as (N, C, spatial...), its axes checked."""
    if axes > 1 and x.ndim <= axes:
        raise ValueError(f"Input dimension should be at least {axes + 1}")
    checks.rank(name, x, axes)
    if 0 in x.shape[-axes - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, "
            f"but input has sizes {list(x.shape)} with dimension "
            f"{list(x.shape).index(0, x.ndim - axes - 1)} being empty"
        )
    return (x if x.ndim == axes + 2 else x.unsqueeze(0)).resolve_neg()


def _whole(size: Sequence[int], bins: Sequence[int]) -> list[int] | None:
    """The window whose pooling, with a stride of itself, has these bins: none where they are
    unequal."""
    if any(out == 0 or n % out for n, out in zip(size, bins, strict=True)):
        return None
    return [n // out for n, out in zip(size, bins, strict=True)]


def _no_bins(batch: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """What pooling into no bins gives: nothing, with a gradient of zeros."""
    return batch.flatten(2)[..., :0].reshape(*batch.shape[:2], *size)


def adaptive_avg_pool(
    axes: int,
    x: torch.Tensor,
    output_size: int | Sequence[int | None],
    backend: str | None,
) -> torch.Tensor:
    name = f"adaptive_avg_pool{axes}d"
    checks.tensor(name, "input", x)
    # A global average is a mean, which is bound by memory as it is; so it is chosen apart.
    one = output_size == 1 or (isinstance(output_size, Sequence) and set(output_size) == {1})
    backend = backends.choose("pool_global" if one else "pool_adaptive", backend, x)
    if backend == "aten":
        return getattr(torch.nn.functional, name)(x, output_size)
    batch = _batched(name, x, axes)
    size = _output_size(name, x, axes, output_size)
    kernel = _whole(batch.shape[2:], size)
    if 0 in size:
        y = _no_bins(batch, size)
    elif kernel is not None:
        y = windows.average(batch, (kernel, kernel, [0] * axes), size, (True, 0), backend)
    elif needs_grad(x):
        y = _AvgPool.apply(batch, size, backend)
    else:
        y = _avg_forward(batch, size, backend)
    return y.squeeze(0) if x.ndim == axes + 1 else y


def adaptive_max_pool(
    axes: int,
    x: torch.Tensor,
    output_size: int | Sequence[int | None],
    return_indices: bool,
    backend: str | None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    name = f"adaptive_max_pool{axes}d"
    checks.tensor(name, "input", x)
    backend = backends.choose("pool_adaptive", backend, x)
    if backend == "aten":
        return getattr(torch.nn.functional, name)(x, output_size, return_indices)
    batch = _batched(name, x, axes)
    size = _output_size(name, x, axes, output_size)
    kernel = _whole(batch.shape[2:], size)
    if 0 in size:
        y = _no_bins(batch, size)
        taken = torch.empty_like(y, dtype=torch.int64)
    elif kernel is not None:
        window = kernel, kernel, [0] * axes, [1] * axes
        y, taken = windows.maximum(batch, window, size, return_indices, backend)
    else:
        wants_grad = needs_grad(x)
        index = "none"
        if return_indices:
            index = "flat"
        elif wants_grad:
            index = index_form(batch.shape[2:], [size])
        if wants_grad:
            results = _MaxPool.apply(batch, size, index, return_indices, backend)
            y, taken = results if return_indices else (results, None)
        else:
            y, taken = _max_forward(batch, size, index, backend)
    if x.ndim == axes + 1:
        y, taken = y.squeeze(0), taken.squeeze(0) if return_indices else None
    return (y, taken) if return_indices else y


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
    backend = backends.choose("pool_pyramid", backend, x)
    batch = _batched(name, x, axes)
    flat = [bins for level in each for bins in level]
    wants_grad = needs_grad(x)
    index = "none"
    if kind == "max" and wants_grad:
        index = index_form(batch.shape[2:], each)
    if wants_grad:
        y = _Pyramid.apply(batch, flat, kind, index, backend)
    else:
        y, _ = _pyramid_forward(batch, flat, kind, index, backend)
    return y.squeeze(0) if x.ndim == axes + 1 else y
