"""Dropout."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import dropout as ops


@overridable
def dropout(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Zeroes elements with probability ``p`` and multiplies the others by 1 / (1 - p).

    The mask is a function of a seed and of an element's number in memory (Philox4x32-10), so the
    backward computes it again and nothing is stored. The seed is one number per call from PyTorch's
    default generator of the tensor's device: ``torch.manual_seed`` repeats it. The backends of one
    device draw the same mask; PyTorch's own operator (``aten``) draws another.

    Args:
        input: any shape; float32, float64, float16 or bfloat16.
        p: in [0, 1].
        training: False returns the input itself.
        inplace: write the result to the input.
        backend: see the module.

    Returns:
        A tensor like the input; the input itself where nothing is to be dropped (p = 0) or with
        ``inplace``.

    Raises:
        ValueError: p is not in [0, 1].
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: Srivastava et al. 2014; PyTorch's ``dropout``.
    """
    return ops.dropout(input, p, training, inplace, backend)


@overridable
def dropout1d(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """:func:`dropout` of whole channels of (N, C, L) or (C, L)."""
    return ops.feature_dropout(1, input, p, training, inplace, backend)


@overridable
def dropout2d(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """:func:`dropout` of whole channels of (N, C, H, W); three axes are read as (N, C, L), as
    PyTorch reads them."""
    return ops.feature_dropout(2, input, p, training, inplace, backend)


@overridable
def dropout3d(
    input: torch.Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """:func:`dropout` of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return ops.feature_dropout(3, input, p, training, inplace, backend)
