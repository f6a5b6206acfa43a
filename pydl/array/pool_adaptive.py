"""Adaptive pooling of arrays; definitions and arguments in ``csrc/pool_adaptive.h``."""

from collections.abc import Sequence

import numpy as np

from pydl.array.library import Array, operands
from pydl.shapes import bins, bins_there, rank

Sizes = int | Sequence[int | None] | None


def adaptive_avg_pool1d(input: Array, output_size: int | Sequence[int]) -> Array:
    """1-D adaptive average pooling of (N, C, L) or (C, L): see :func:`adaptive_avg_pool2d`."""
    return _pool("adaptive_avg_pool1d", 1, input, output_size)[0]


def adaptive_avg_pool2d(input: Array, output_size: Sizes) -> Array:
    """2-D adaptive average pooling of (N, C, H, W) or (C, H, W): the mean of each of so many bins
    along an axis, bin o of n from floor(o L / n) to ceil((o + 1) L / n).

    Arguments and errors are :func:`torch.nn.functional.adaptive_avg_pool2d`'s: ``output_size`` is
    an int or one per axis, None the input's size.

    Source: PyTorch's ``adaptive_avg_pool2d``.
    """
    return _pool("adaptive_avg_pool2d", 2, input, output_size)[0]


def adaptive_avg_pool3d(input: Array, output_size: Sizes) -> Array:
    """3-D adaptive average pooling of (N, C, D, H, W) or (C, D, H, W): see
    :func:`adaptive_avg_pool2d`."""
    return _pool("adaptive_avg_pool3d", 3, input, output_size)[0]


def adaptive_max_pool1d(
    input: Array, output_size: int | Sequence[int], return_indices: bool = False
) -> Array | tuple[Array, Array]:
    """1-D adaptive max pooling of (N, C, L) or (C, L): see :func:`adaptive_max_pool2d`."""
    both = _pool("adaptive_max_pool1d", 1, input, output_size, True, return_indices)
    return both if return_indices else both[0]


def adaptive_max_pool2d(
    input: Array, output_size: Sizes, return_indices: bool = False
) -> Array | tuple[Array, Array]:
    """2-D adaptive max pooling of (N, C, H, W) or (C, H, W): the largest element of each of the
    bins of :func:`adaptive_avg_pool2d`; NaN wins.

    With ``return_indices`` the places of the maxima in the flat H * W plane, int64, come second.

    Source: PyTorch's ``adaptive_max_pool2d``.
    """
    both = _pool("adaptive_max_pool2d", 2, input, output_size, True, return_indices)
    return both if return_indices else both[0]


def adaptive_max_pool3d(
    input: Array, output_size: Sizes, return_indices: bool = False
) -> Array | tuple[Array, Array]:
    """3-D adaptive max pooling of (N, C, D, H, W) or (C, D, H, W): see
    :func:`adaptive_max_pool2d`."""
    both = _pool("adaptive_max_pool3d", 3, input, output_size, True, return_indices)
    return both if return_indices else both[0]


def _pool(
    name: str,
    axes: int,
    input: Array,
    output_size: Sizes,
    maximum: bool = False,
    return_indices: bool = False,
) -> tuple[Array, Array]:
    """The result and the index, None where nobody asked."""
    with operands(name, {"input": input}) as (library, x):
        rank(name, x, axes)
        size = bins(name, x, axes, output_size)
        bins_there(name, x, -axes if maximum else -axes - 1)
        batch = library.dense(x if x.ndim == axes + 2 else x[None])
        shape = (*batch.shape[:2], *size)
        y = library.empty(shape, batch)
        index = library.empty(shape, batch, np.int64) if return_indices else None
        if 0 not in shape:
            library.call("adaptive_pool_forward", batch, y, index, [size], False, maximum)
        if x.ndim == axes + 2:
            return y, index
        return y[0], index if index is None else index[0]
