"""Response normalisation within a channel from its definition (csrc/spatial_norm.h has the
equations)."""

import torch

from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward
from pydl.reference import in_full_precision
from pydl.reference.lrn import window_sum


def _box_sum(values: torch.Tensor, below: int, above: int) -> torch.Tensor:
    """Sum over the positions p - below ... p + above of every spatial axis, those that exist."""
    for axis in range(2, values.ndim):
        values = window_sum(values, axis, below, above)
    return values


@in_full_precision
def spatial_norm_forward(call: SpatialNormForward) -> torch.Tensor:
    """y = x (k + alpha / size^axes * boxsum(x^2))^-beta."""
    x, size, alpha, beta, k = call
    scale = k + alpha / size ** (x.ndim - 2) * _box_sum(x * x, size // 2, (size - 1) // 2)
    return x * scale**-beta


@in_full_precision
def spatial_norm_backward(call: SpatialNormBackward) -> torch.Tensor:
    """grad_x = grad_y scale^-beta - 2 alpha beta / size^axes * x * boxsum'(grad_y x scale^(-beta -
    1))."""
    grad_y, x, size, alpha, beta, k = call
    rate = alpha / size ** (x.ndim - 2)
    scale = k + rate * _box_sum(x * x, size // 2, (size - 1) // 2)
    through_scale = _box_sum(grad_y * x * scale ** (-beta - 1), (size - 1) // 2, size // 2)
    return grad_y * scale**-beta - 2 * rate * beta * x * through_scale
