"""Adaptive and pyramid pooling."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, overload

import torch

from pydl.functional.overridable import overridable
from pydl.ops import pool_adaptive as ops

Pair = tuple[torch.Tensor, torch.Tensor]


class _MaxPool(Protocol):
    """What a maximum returns, by ``return_indices``."""

    @overload
    def __call__(
        self,
        input: torch.Tensor,
        output_size: int | Sequence[int | None] | None,
        return_indices: Literal[False] = False,
        *,
        backend: str | None = None,
    ) -> torch.Tensor: ...
    @overload
    def __call__(
        self,
        input: torch.Tensor,
        output_size: int | Sequence[int | None] | None,
        return_indices: Literal[True],
        *,
        backend: str | None = None,
    ) -> Pair: ...
    @overload
    def __call__(
        self,
        input: torch.Tensor,
        output_size: int | Sequence[int | None] | None,
        return_indices: bool,
        *,
        backend: str | None = None,
    ) -> torch.Tensor | Pair: ...


def _typed(function: Callable[..., Any]) -> _MaxPool:
    """The function itself, to a type checker with these three ways to call it."""
    return function


@overridable
def adaptive_avg_pool1d(
    input: torch.Tensor, output_size: int | Sequence[int], *, backend: str | None = None
) -> torch.Tensor:
    """1-D adaptive average pooling of (N, C, L) or (C, L): see :func:`adaptive_avg_pool2d`."""
    return ops.adaptive_avg_pool(1, input, output_size, backend)


@overridable
def adaptive_avg_pool2d(
    input: torch.Tensor,
    output_size: int | Sequence[int | None] | None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D adaptive average pooling: the mean of each of a given number of bins.

    Bin o of O along an axis of I elements is [floor(o I / O), ceil((o + 1) I / O)): bins are
    unequal and overlap where O does not divide I. With 1 it is global average pooling.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        output_size: the bins, an int or one per axis; None is the input's size.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the layout of PyTorch's.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``adaptive_avg_pool2d``; Lin et al. 2014 for the global one.
    """
    return ops.adaptive_avg_pool(2, input, output_size, backend)


@overridable
def adaptive_avg_pool3d(
    input: torch.Tensor,
    output_size: int | Sequence[int | None] | None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """3-D adaptive average pooling of (N, C, D, H, W) or (C, D, H, W): see
    :func:`adaptive_avg_pool2d`."""
    return ops.adaptive_avg_pool(3, input, output_size, backend)


@_typed
@overridable
def adaptive_max_pool1d(
    input: torch.Tensor,
    output_size: int | Sequence[int],
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """1-D adaptive max pooling of (N, C, L) or (C, L): see :func:`adaptive_max_pool2d`."""
    return ops.adaptive_max_pool(1, input, output_size, return_indices, backend)


@_typed
@overridable
def adaptive_max_pool2d(
    input: torch.Tensor,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """2-D adaptive max pooling: the largest value of each of a given number of bins, which are
    :func:`adaptive_avg_pool2d`'s.

    A NaN wins; on ties the first in scan order is taken, and gets the gradient. Training keeps one
    byte per output where the longest bin has at most 256 elements, else eight; inference nothing.

    Args:
        input, output_size, backend: as :func:`adaptive_avg_pool2d`.
        return_indices: also return the places of the maxima, as int64 positions in the flat plane.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the layout of PyTorch's; with ``return_indices`` also the
        positions.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``adaptive_max_pool2d``.
    """
    return ops.adaptive_max_pool(2, input, output_size, return_indices, backend)


@_typed
@overridable
def adaptive_max_pool3d(
    input: torch.Tensor,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """3-D adaptive max pooling of (N, C, D, H, W) or (C, D, H, W): see
    :func:`adaptive_max_pool2d`."""
    return ops.adaptive_max_pool(3, input, output_size, return_indices, backend)


@overridable
def adaptive_max_pool1d_with_indices(
    input: torch.Tensor,
    output_size: int | Sequence[int],
    return_indices: bool = True,
    *,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`adaptive_max_pool1d` with its indices, whatever ``return_indices`` says."""
    return ops.adaptive_max_pool(1, input, output_size, True, backend)


@overridable
def adaptive_max_pool2d_with_indices(
    input: torch.Tensor,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = True,
    *,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`adaptive_max_pool2d` with its indices, whatever ``return_indices`` says."""
    return ops.adaptive_max_pool(2, input, output_size, True, backend)


@overridable
def adaptive_max_pool3d_with_indices(
    input: torch.Tensor,
    output_size: int | Sequence[int | None] | None,
    return_indices: bool = True,
    *,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`adaptive_max_pool3d` with its indices, whatever ``return_indices`` says."""
    return ops.adaptive_max_pool(3, input, output_size, True, backend)


@overridable
def spatial_pyramid_pool(
    input: torch.Tensor,
    levels: Sequence[int | Sequence[int]],
    kind: str = "max",
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Spatial pyramid pooling: a map of any size becomes a vector of one length.

    Each level pools the map into a grid of bins, those of :func:`adaptive_max_pool2d` and
    :func:`adaptive_avg_pool2d`; the levels, which need not nest, follow one another, each as
    (C, bins). The map is read once. The gradient of an element is the sum over the levels.

    Equivalent to: ``cat([adaptive_max_pool2d(input, n).flatten(1) for n in levels], 1)``

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        levels: 1 to 16 of them, the bins of each: an int (n x n) or one per axis.
        kind: ``max`` or ``average``.
        backend: see the module.

    Returns:
        (N, C * M) or (C * M,), where M is the number of bins of all levels.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`; ValueError also for
            no level, more than 16, or another ``kind``.

    Source: He et al. 2014, "Spatial pyramid pooling in deep convolutional networks for visual
    recognition".
    """
    return ops.pyramid_pool(2, input, levels, kind, backend)
