"""Response normalisation within a channel from its definition (csrc/spatial_norm.h has the
equations)."""

import itertools
from types import EllipsisType

import torch

from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward
from pydl.reference import in_full_precision


def _box_sum(values: torch.Tensor, below: int, above: int) -> torch.Tensor:
    """Sum over the positions p - below ... p + above of every spatial axis, those that exist."""
    sizes = values.shape[2:]
    reach = (range(-min(below, n - 1), min(above, n - 1) + 1) for n in sizes)
    total = torch.zeros_like(values)
    for offsets in itertools.product(*reach):
        moves = tuple(zip(offsets, sizes, strict=True))
        to: tuple[slice | EllipsisType, ...] = (
            ...,
            *(slice(max(0, -o), n - max(0, o)) for o, n in moves),
        )
        near: tuple[slice | EllipsisType, ...] = (
            ...,
            *(slice(max(0, o), n + min(0, o)) for o, n in moves),
        )
        shifted = torch.zeros_like(values)
        shifted[to] = values[near]
        total = total + shifted
    return total


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
