"""Max and average pooling of arrays; definitions and arguments in ``csrc/pool.h``."""

from collections.abc import Sequence

import numpy as np

from pydl.array.library import Array, Library, operands
from pydl.shapes import Ints, Window, divisor, poolable, pooled_size, windows


def max_pool1d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """1-D max pooling of (N, C, L) or (C, L): see :func:`max_pool2d`."""
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """2-D max pooling of (N, C, H, W) or (C, H, W): the largest element of each window; NaN wins.

    Arguments and errors are :func:`torch.nn.functional.max_pool2d`'s; with ``return_indices`` the
    places of the maxima in the flat H * W plane, int64, come second.

    Source: Weng et al. 1992; Riesenhuber and Poggio 1999.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Array | tuple[Array, Array]:
    """3-D max pooling of (N, C, D, H, W) or (C, D, H, W): see :func:`max_pool2d`."""
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """1-D average pooling of (N, C, L) or (C, L): see :func:`avg_pool2d`."""
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """2-D average pooling of (N, C, H, W) or (C, H, W): the mean of each window.

    Arguments and errors are :func:`torch.nn.functional.avg_pool2d`'s.

    Source: LeCun et al. 1998, section II.
    """
    how = ceil_mode, count_include_pad, divisor_override
    return _avg_pool(2, input, kernel_size, stride, padding, *how)


def avg_pool3d(
    input: Array,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """3-D average pooling of (N, C, D, H, W) or (C, D, H, W): see :func:`avg_pool2d`."""
    how = ceil_mode, count_include_pad, divisor_override
    return _avg_pool(3, input, kernel_size, stride, padding, *how)


def batched(
    library: Library, name: str, x: Array, axes: int, window: Window, ceil_mode: bool
) -> tuple[Array, Array]:
    """The input as a batch that the kernels read, its axes checked, and an unwritten one with an
    element for each of its windows."""
    poolable(name, x, axes)
    batch = library.dense(x if x.ndim == axes + 2 else x[None])
    shape = (*batch.shape[:2], *pooled_size(name, batch, window, ceil_mode))
    return batch, library.empty(shape, batch)


def _max_pool(
    axes: int,
    input: Array,
    kernel_size: int | Ints,
    stride: int | Ints | None,
    padding: int | Ints,
    dilation: int | Ints,
    ceil_mode: bool,
    return_indices: bool,
) -> Array | tuple[Array, Array]:
    name = f"max_pool{axes}d"
    with operands(name, {"input": input}) as (library, x):
        window = windows(name, axes, kernel_size, stride, padding, dilation)
        batch, y = batched(library, name, x, axes, window, ceil_mode)
        index = library.empty(y.shape, batch, np.int64) if return_indices else None
        library.call("max_pool_forward", batch, y, index, *window)
        results = [y, index] if return_indices else [y]
        if x.ndim == axes + 1:
            results = [one[0] for one in results]
        return tuple(results) if return_indices else results[0]


def _avg_pool(
    axes: int,
    input: Array,
    kernel_size: int | Ints,
    stride: int | Ints | None,
    padding: int | Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Array:
    name = f"avg_pool{axes}d"
    with operands(name, {"input": input}) as (library, x):
        how = bool(count_include_pad), divisor(name, divisor_override)
        window = windows(name, axes, kernel_size, stride, padding, 1)
        batch, y = batched(library, name, x, axes, window, ceil_mode)
        library.call("avg_pool_forward", batch, y, *window[:3], *how)
        return y if x.ndim == axes + 2 else y[0]
