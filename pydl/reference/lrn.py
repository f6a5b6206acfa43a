"""Local response normalisation from its definition (csrc/lrn.h has the equations)."""

import functools

import torch

from pydl.contract.lrn import LrnBackward, LrnForward
from pydl.reference import in_full_precision


def window_sum(values: torch.Tensor, axis: int, below: int, above: int) -> torch.Tensor:
    """Sum over the places p - below ... p + above of an axis, those that exist."""
    size = values.shape[axis]
    padding = [0, 0] * (values.ndim - 1 - axis) + [below, above]
    padded = torch.nn.functional.pad(values, padding)
    windows = (padded.narrow(axis, offset, size) for offset in range(below + above + 1))
    return functools.reduce(torch.add, windows)


@in_full_precision
def lrn_forward(call: LrnForward) -> torch.Tensor:
    """y = x (k + alpha / size * windowsum(x^2))^-beta."""
    x, size, alpha, beta, k = call
    scale = k + alpha / size * window_sum(x * x, 1, size // 2, (size - 1) // 2)
    return x * scale**-beta


@in_full_precision
def lrn_backward(call: LrnBackward) -> torch.Tensor:
    """grad_x = grad_y scale^-beta - 2 alpha beta / size * x * windowsum'(grad_y x scale^(-beta -
    1))."""
    grad_y, x, size, alpha, beta, k = call
    scale = k + alpha / size * window_sum(x * x, 1, size // 2, (size - 1) // 2)
    through_scale = window_sum(grad_y * x * scale ** (-beta - 1), 1, (size - 1) // 2, size // 2)
    return grad_y * scale**-beta - 2 * alpha * beta / size * x * through_scale
