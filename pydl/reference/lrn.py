"""Local response normalisation from its definition (csrc/lrn.h has the equations)."""

import torch

from pydl.contract.lrn import LrnBackward, LrnForward
from pydl.reference import in_full_precision


def _window_sum(values: torch.Tensor, below: int, above: int) -> torch.Tensor:
    """Sum over the channels c - below ... c + above, those that exist."""
    channels = values.shape[1]
    total = torch.zeros_like(values)
    for offset in range(-min(below, channels), min(above, channels) + 1):
        shifted = torch.zeros_like(values)
        shifted[:, max(0, -offset) : channels - max(0, offset)] = values[
            :, max(0, offset) : channels + min(0, offset)
        ]
        total = total + shifted
    return total


@in_full_precision
def lrn_forward(call: LrnForward) -> torch.Tensor:
    """y = x (k + alpha / size * windowsum(x^2))^-beta."""
    x, size, alpha, beta, k = call
    scale = k + alpha / size * _window_sum(x * x, size // 2, (size - 1) // 2)
    return x * scale**-beta


@in_full_precision
def lrn_backward(call: LrnBackward) -> torch.Tensor:
    """grad_x = grad_y scale^-beta - 2 alpha beta / size * x * windowsum'(grad_y x scale^(-beta -
    1))."""
    grad_y, x, size, alpha, beta, k = call
    scale = k + alpha / size * _window_sum(x * x, size // 2, (size - 1) // 2)
    through_scale = _window_sum(grad_y * x * scale ** (-beta - 1), (size - 1) // 2, size // 2)
    return grad_y * scale**-beta - 2 * alpha * beta / size * x * through_scale
