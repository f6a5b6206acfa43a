"""Losses of classes."""

import warnings

import torch

from pydl import plan
from pydl.functional.overridable import overridable
from pydl.ops import cross_entropy as ops


@overridable
def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Cross entropy between the softmax of ``input`` and ``target``, pixel by pixel for maps.

    One pass forward and one backward: neither probabilities nor their logarithms are stored, but
    two numbers per position. Contiguous and channels-last maps are read where they lie.

    Args:
        input: scores, not probabilities: (C,), (N, C) or (N, C, d1, ...); float32, float64, float16
            or bfloat16.
        target: class indices () or (N,) or (N, d1, ...) of int64 or uint8; or class probabilities
            in the input's shape.
        weight: one per class, (C,).
        size_average, reduce: PyTorch's deprecated forms of ``reduction``.
        ignore_index: positions with this target do not count; only for class indices.
        reduction: ``none``; ``sum``; ``mean``, over the sum of the targets' weights for class
            indices, over the number of positions for probabilities.
        label_smoothing: in [0, 1]: how much of each target is spread evenly over all classes.
        backend: see the module.

    Returns:
        A number, or without reduction one per position.

    Raises:
        IndexError: a target outside of [0, C) that is not ``ignore_index``. A GPU's kernel does not
            wait to report it: there the loss and that position's gradient are NaN.
        TypeError, RuntimeError, ValueError: as PyTorch's, and as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``cross_entropy``; label smoothing: Szegedy et al. 2015, section 7.
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction(size_average, reduce)
    return ops.cross_entropy(
        input, target, weight, ignore_index, reduction, label_smoothing, backend
    )


@overridable
def nll_loss(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """The negative log likelihood of ``target``: what :func:`cross_entropy` computes from the
    logarithms that :func:`log_softmax` gives.

    Served by PyTorch's own operator and by the reference.

    Args:
        input: logarithms of probabilities: (C,), (N, C) or (N, C, d1, ...); float32, float64,
            float16 or bfloat16.
        target: class indices () or (N,) or (N, d1, ...) of int64 or uint8.
        weight: one per class, (C,), of the input's dtype.
        size_average, reduce: PyTorch's deprecated forms of ``reduction``.
        ignore_index: positions with this target do not count.
        reduction: ``none``; ``sum``; ``mean``, over the sum of the targets' weights.
        backend: see the module.

    Returns:
        A number, or without reduction one per position.

    Raises:
        IndexError: a target outside of [0, C) that is not ``ignore_index``.
        TypeError, RuntimeError, ValueError: as PyTorch's, and as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``nll_loss``.
    """
    if size_average is not None or reduce is not None:
        reduction = _reduction(size_average, reduce)
    return ops.nll_loss(input, target, weight, ignore_index, reduction, backend)


def _reduction(size_average: bool | None, reduce: bool | None) -> str:
    averages, reduces = size_average is not False, reduce is not False
    plan.never()  # says so each time
    reduction = ("mean" if averages else "sum") if reduces else "none"
    warnings.warn(
        f"size_average and reduce args will be deprecated, please use reduction='{reduction}' "
        "instead.",
        stacklevel=4,
    )
    return reduction
