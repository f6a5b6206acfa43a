"""Response normalisation within a channel by PyTorch's pooling and powers: it has no operator for
it."""

import torch

from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward


def spatial_norm_forward(call: SpatialNormForward) -> torch.Tensor:
    x, size, alpha, beta, k = call
    scale = _box_mean(x * x, size, size // 2, (size - 1) // 2).mul(alpha).add(k)
    return x * scale.pow(-beta)


def spatial_norm_backward(call: SpatialNormBackward) -> torch.Tensor:
    grad_y, x, size, alpha, beta, k = call
    below, above = size // 2, (size - 1) // 2
    scale = _box_mean(x * x, size, below, above).mul(alpha).add(k)
    through_scale = _box_mean(grad_y * x * scale.pow(-beta - 1), size, above, below)
    return grad_y * scale.pow(-beta) - x * through_scale.mul(2 * alpha * beta)


def _box_mean(values: torch.Tensor, size: int, below: int, above: int) -> torch.Tensor:
    """The sum over the positions p - below ... p + above of every spatial axis, those that exist,
    over size^axes."""
    if values.numel() == 0:
        return values
    axes = values.ndim - 2
    padded = torch.nn.functional.pad(values, (below, above) * axes)
    pool = getattr(torch.nn.functional, f"avg_pool{axes}d")
    return pool(padded, size, stride=1)
