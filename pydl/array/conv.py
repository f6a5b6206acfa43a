"""Convolution of arrays; definition and arguments in ``csrc/conv.h``.

The CPU kernels are depthwise: of NumPy's arrays any other convolution is a product of the weight
with the windows of one image after the other, by the BLAS that NumPy is built with.
"""

import math
from collections.abc import Sequence

import numpy as np

from pydl.array.library import Array, operands, sums_dtype
from pydl.ops import conv_checks
from pydl.shapes import Ints, conv_size, rank


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """1-D convolution of (N, C, L) or (C, L) with a weight (F, C / groups, K): see
    :func:`conv2d`."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """2-D convolution (cross-correlation) of (N, C, H, W) or (C, H, W) with a weight
    (F, C / groups, KH, KW) and a bias (F).

    Arguments and errors are :func:`torch.nn.functional.conv2d`'s. On a CPU a depthwise convolution
    is a kernel's; any other is the product of BLAS with a copy of one image's windows, which takes
    C * KH * KW * OH * OW numbers, and its result is contiguous.

    Source: LeCun et al. 1998, section II.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """3-D convolution of (N, C, D, H, W) or (C, D, H, W) with a weight (F, C / groups, KD, KH, KW):
    see :func:`conv2d`."""
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def _conv(
    axes: int,
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: int | Ints,
    padding: str | int | Ints,
    dilation: int | Ints,
    groups: int,
) -> Array:
    name = f"conv{axes}d"
    given = {"input": input, "weight": weight}
    with operands(name, given, {"bias": bias}) as (library, x, weight, bias):
        rank(name, x, axes)
        conv_checks.weight_rank(name, weight, axes)
        batch = x if x.ndim == axes + 2 else x[None]
        groups = conv_checks.groups_of(name, groups)
        stride = conv_checks.per_axis(name, "stride", stride, axes, least=1)
        dilation = conv_checks.per_axis(name, "dilation", dilation, axes, least=1)
        padding, right = conv_checks.resolve_padding(
            name, weight.shape[2:], stride, padding, dilation
        )
        if any(right):
            batch = library.arrays.pad(batch, [(0, 0), (0, 0), *((0, r) for r in right)])
        conv_checks.shapes(name, batch, weight, bias, groups)
        conv_checks.kernel_fits(batch, weight, padding, dilation)
        conv_checks.has_positions(batch)
        window = stride, padding, dilation
        size = conv_size(batch.shape[2:], weight.shape[2:], *window)
        if library.on_gpu or (weight.shape[1] == 1 and groups > 1):
            batch = library.dense(batch)
            y = library.empty((len(batch), len(weight), *size), batch)
            fixed = library.contiguous(weight), library.contiguous(bias)
            how = *window, groups, "none", 0.0, False
            library.call("conv_forward", batch, *fixed, None, y, *how)
        else:
            y = _product(batch, weight, bias, size, *window, groups)
        return y if x.ndim == axes + 2 else y[0]


def _product(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None,
    size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> np.ndarray:
    spatial = range(2, x.ndim)
    if any(padding):
        x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    span = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(x, span, tuple(spatial))
    steps = tuple(slice(None, None, step) for step in (1, 1, *stride, *dilation))
    windows = windows[steps]  # (N, C, out..., taps...)
    taps = range(x.ndim, windows.ndim)
    windows = windows.transpose(0, 1, *taps, *spatial)
    sums = sums_dtype(x)
    rows = weight.reshape(groups, len(weight) // groups, -1).astype(sums, copy=False)
    shift = 0 if bias is None else bias.reshape(groups, -1, 1)
    y = np.empty((len(x), groups, rows.shape[1], math.prod(size)), x.dtype)
    for image, out in zip(windows, y, strict=True):
        columns = image.reshape(groups, rows.shape[2], -1).astype(sums, copy=False)
        np.add(rows @ columns, shift, out=out, casting="same_kind")
    return y.reshape(len(x), len(weight), *size)
