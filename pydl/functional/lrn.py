"""Local response normalisation."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import lrn as ops


@overridable
def local_response_norm(
    input: torch.Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Local response normalisation across channels: x / (k + alpha / size * sum of x^2 over
    ``size`` channels)^beta.

    alpha is divided by ``size`` always, edges included, as PyTorch does; the AlexNet paper and
    TensorFlow do not divide, so an alpha of theirs is ``alpha * size`` here. An even ``size`` looks
    at one channel more below than above.

    Args:
        input: (N, C, ...) with at least three axes; float32, float64, float16 or bfloat16.
        size: the number of channels in the window.
        alpha, beta, k: as in the formula.
        backend: see the module.

    Returns:
        A tensor like the input.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`; ValueError also for
            fewer than three axes.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3; PyTorch's ``local_response_norm``.
    """
    return ops.local_response_norm(input, size, alpha, beta, k, backend)
