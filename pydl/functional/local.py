"""Locally connected layers."""

from collections.abc import Sequence

import torch

from pydl.functional.overridable import overridable
from pydl.ops import local as ops


@overridable
def locally_connected1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """1-D locally connected layer of (N, C, L) or (C, L) with a weight (F, C, K, OL) and a bias
    (F, OL): see :func:`locally_connected2d`.

    Equivalent to: ``einsum("nclk,fckl->nfl", input.unfold(2, weight.shape[2], stride), weight) +
    bias`` without padding and dilation.
    """
    return ops.locally_connected(1, input, weight, bias, stride, padding, dilation, backend)


@overridable
def locally_connected2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D convolution without weight sharing: every position of the output has filters of its own.

    y[n, f, o] = bias[f, o] + sum over c, t of x[n, c, o stride - padding + t dilation]
    weight[f, c, t, o]. Differentiable to any order in input, weight and bias.

    Equivalent to: ``einsum("nkl,fkl->nfl", unfold(input, weight.shape[2:4], dilation, padding,
    stride), weight.flatten(4).flatten(1, 3)).unflatten(2, weight.shape[4:]) + bias``

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        weight: (F, C, KH, KW, OH, OW), of the input's dtype and device; says the kernel's size and
            must fit the output's.
        bias: (F, OH, OW) or None.
        stride, padding, dilation: as :func:`pydl.functional.conv2d`, padding in numbers.
        backend: see the module.

    Returns:
        (N, F, OH, OW) or (F, OH, OW), contiguous.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: LeCun 1989, Generalization and network design strategies; Taigman et al. 2014, DeepFace.
    """
    return ops.locally_connected(2, input, weight, bias, stride, padding, dilation, backend)
