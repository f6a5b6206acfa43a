"""Memory layout: which of the two layouts a map has, and the one place where results are allocated.

A map (N, C, spatial...) lies either contiguous (N, C first) or channels last. A result takes the
layout that PyTorch would give it, in the operator and in its fake alike, because both ask here.
"""

import math
from collections.abc import Sequence

import torch
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.compiler import is_compiling

from pydl import plan

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def memory_format(x: torch.Tensor) -> torch.memory_format:
    """The layout that PyTorch's operators give a result which they compute from the map ``x``.

    Channels last where the strides are ordered that way, in a dense map or a view with gaps;
    contiguous where it is empty, where it is expanded along its channels or over everything outside
    of them, and where both descriptions fit and the strides do not say channels last.
    """
    channels_last = _CHANNELS_LAST.get(x.ndim)
    if channels_last is None:
        return torch.contiguous_format
    stride = x.stride()
    least = stride[1]
    if least == 0 or stride[-1] < least:
        return torch.contiguous_format
    shape = x.shape
    plain = least == 1 and 1 not in shape and 0 not in shape
    if plain and x.is_contiguous(memory_format=channels_last):
        return channels_last  # what the loop would say
    for axis in (1, *range(x.ndim - 1, 1, -1), 0):
        if shape[axis] == 0 or stride[axis] < least or (axis == 0 and least == stride[1]):
            return torch.contiguous_format
        least = stride[axis] * shape[axis] if shape[axis] > 1 else stride[axis]
    return channels_last


def channels_last(x: torch.Tensor) -> bool:
    """Whether results computed from the map ``x`` are channels last."""
    return memory_format(x) is not torch.contiguous_format


def contiguous(x: torch.Tensor) -> torch.Tensor:
    """``x`` contiguous, by the strides of axes with one element as well."""
    x = x.contiguous()
    return x.reshape(-1).view(x.shape) if channels_last(x) else x


def as_elementwise(result: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``result`` with the layout that PyTorch's elementwise operators give what they compute from
    ``x``, whose shape it has: in the order of its axes in memory, without gaps."""
    if x.is_contiguous():
        return contiguous(result)
    if result.stride() == x.stride():
        return result
    order = axes_in_memory(x)
    back = sorted(range(x.ndim), key=order.__getitem__)
    return contiguous(result.permute(order)).permute(back)


def axes_in_memory(x: torch.Tensor) -> list[int]:
    """The axes of ``x`` from the outermost in memory to the innermost, as PyTorch's elementwise
    operators order those of their results."""
    stride = torch.empty_like(x, device="meta").stride()
    return sorted(range(x.ndim), key=lambda axis: stride[axis], reverse=True)


def empty(
    shape: Sequence[int],
    like: torch.Tensor,
    *,
    dtype: torch.dtype | None = None,
    layout: torch.memory_format | None = None,
) -> torch.Tensor:
    """An unwritten tensor of this shape on the device of ``like``, in its dtype and its layout
    unless told otherwise."""
    layout = memory_format(like) if layout is None else layout
    if layout is not torch.contiguous_format and len(shape) in _CHANNELS_LAST:
        dtype = like.dtype if dtype is None else dtype
        made = torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)
    else:
        made = like.new_empty(shape) if dtype is None else like.new_empty(shape, dtype=dtype)
    return plan.allocated(made)


def dense(x: torch.Tensor, layout: torch.memory_format | None = None) -> torch.Tensor:
    """``x`` itself where it is dense in ``layout`` (its own by default), else a copy that is.

    The one place where a backend that needs dense memory copies: only views that are neither
    contiguous nor channels last, and gradients that came in the other layout.
    """
    layout = memory_format(x) if layout is None else layout
    if layout is not torch.contiguous_format and _transformed():
        return x.movedim(1, -1).contiguous().movedim(-1, 1)  # vmap knows no other copy
    return x.contiguous(memory_format=layout)


def resized(
    x: torch.Tensor, spatial: Sequence[int], *, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """An unwritten map (N, C, *spatial) in the layout of the map ``x``: what pooling and its
    gradient return."""
    return empty((*x.shape[:2], *spatial), x, dtype=dtype)


def sums_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype in which sums over ``x`` are computed and kept: float32, float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def channel_sums(x: torch.Tensor) -> torch.Tensor:
    """One unwritten number per channel of the map ``x``: float32, float64 for float64."""
    dtype = sums_dtype(x)
    return empty((x.shape[1],), x, dtype=dtype, layout=torch.contiguous_format)


def nothing(x: torch.Tensor, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A tensor without elements, in the place of a result that was not asked for."""
    return empty((0,), x, dtype=dtype, layout=torch.contiguous_format)


def columns(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The dense map ``x`` as (outer, C, inner) in the order of its memory: what lies outside of the
    axis ``dim``, the axis, what lies inside of it. A view."""
    if memory_format(x) is not torch.contiguous_format:
        x = x.movedim(1, -1)
        dim = x.ndim - 1 if dim == 1 else max(dim - 1, 0)
    shape = x.shape
    return x.reshape(math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :]))


def _transformed() -> bool:
    """Whether torch.func watches, which torch.compile guards itself."""
    return not is_compiling() and torch._C._are_functorch_transforms_active()


def unmapped(x: torch.Tensor) -> torch.Tensor:
    """The tensor of all samples, where torch.func's transforms let ``x`` be one of them."""
    while is_functorch_wrapped_tensor(x):
        x = get_unwrapped(x)
    return x


def elements(x: torch.Tensor) -> int:
    """How many numbers a call with this input is about: those of all samples."""
    return unmapped(x).numel() if _transformed() else x.numel()


def planes(x: torch.Tensor) -> torch.Tensor:
    """A map (N, C, spatial...) as (N, C, pixels); a view where there is one."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def line(x: torch.Tensor) -> torch.Tensor:
    """The elements of a dense tensor in the order of its memory. A view."""
    return x.as_strided((x.numel(),), (1,))


def ordered(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """``x`` dense, and channels last or not as told."""
    return dense(x, chosen(channels_last, x.ndim))


def input_grad(
    grad_y: torch.Tensor, input_shape: Sequence[int], channels_last: bool
) -> torch.Tensor:
    """The unwritten gradient of a map whose layout the gradient ``grad_y`` does not show."""
    return empty(input_shape, grad_y, layout=chosen(channels_last, len(input_shape)))


def chosen(channels_last: bool, axes: int = 4) -> torch.memory_format:
    """The layout of a map that is channels last or not, as told."""
    return _CHANNELS_LAST[axes] if channels_last else torch.contiguous_format
