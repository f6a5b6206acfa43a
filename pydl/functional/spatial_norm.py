"""Response normalisation within a channel."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import spatial_norm as ops


@overridable
def spatial_response_norm(
    input: torch.Tensor,
    size: int,
    alpha: float = 1.0,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Response normalisation within each channel: x / (k + alpha / size^axes * sum of x^2 over a
    box of ``size`` positions along every spatial axis)^beta.

    alpha is divided by the whole box always, edges included: positions outside the map count as
    zeros. An even ``size`` looks at one position more before than after. Caffe's WITHIN_CHANNEL is
    this with k = 1.

    Equivalent to: ``input / (k + alpha * avg_pool2d(input**2, size, 1, size // 2)) ** beta`` for
    maps and an odd ``size``.

    Args:
        input: (N, C, L), (N, C, H, W) or (N, C, D, H, W); float32, float64, float16 or bfloat16.
        size: of the box, along every spatial axis.
        alpha, beta, k: as in the formula.
        backend: see the module.

    Returns:
        A tensor like the input.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`; ValueError also for
            fewer than three or more than five axes.

    Source: Caffe's LRN layer with ``norm_region: WITHIN_CHANNEL``; cuda-convnet's response
    normalisation ("same map").
    """
    return ops.spatial_response_norm(input, size, alpha, beta, k, backend)
