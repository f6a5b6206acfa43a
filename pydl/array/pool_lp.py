"""Power-average pooling of arrays; definition and arguments in ``csrc/pool_lp.h``."""

import math
from collections.abc import Sequence

from pydl.array import pool
from pydl.array.library import Array, operands
from pydl.shapes import Ints, windows


def lp_pool1d(
    input: Array,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Array:
    """1-D power-average pooling of (N, C, L) or (C, L): see :func:`lp_pool2d`."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Array,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Array:
    """2-D power-average pooling of (N, C, H, W) or (C, H, W): the ``norm_type``-norm of each
    window, (sum x^p)^(1 / p), without an absolute value; an infinite norm is max or min pooling of
    the magnitudes.

    Arguments are :func:`torch.nn.functional.lp_pool2d`'s.

    Raises:
        ZeroDivisionError: ``norm_type`` is 0.
        TypeError, RuntimeError: see the module.

    Source: PyTorch's ``lp_pool2d``; Sermanet et al. 2012.
    """
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Array,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Array:
    """3-D power-average pooling of (N, C, D, H, W) or (C, D, H, W): see :func:`lp_pool2d`."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def _lp_pool(
    axes: int,
    input: Array,
    norm_type: float,
    kernel_size: int | Ints,
    stride: int | Ints | None,
    ceil_mode: bool,
) -> Array:
    name = f"lp_pool{axes}d"
    power = float(norm_type)
    if power == 0:
        raise ZeroDivisionError("float division by zero")
    with operands(name, {"input": input}) as (library, x):
        if math.isinf(power):  # the limits are the largest magnitude and the smallest
            sign = math.copysign(1, power)
            magnitudes = sign * abs(x)
            largest = getattr(pool, f"max_pool{axes}d")
            return sign * largest(magnitudes, kernel_size, stride, ceil_mode=ceil_mode)
        window = windows(name, axes, kernel_size, stride, 0, 1)
        batch, y = pool.batched(library, name, x, axes, window, ceil_mode)
        library.call("lp_pool_forward", batch, y, power, *window[:2])
        return y if x.ndim == axes + 2 else y[0]
