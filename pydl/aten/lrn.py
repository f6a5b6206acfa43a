"""PyTorch's local response normalisation, and its gradient from PyTorch's pooling and powers."""

import torch

from pydl.contract.lrn import LrnBackward, LrnForward


def lrn_forward(call: LrnForward) -> torch.Tensor:
    x, size, alpha, beta, k = call
    return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)


def lrn_backward(call: LrnBackward) -> torch.Tensor:
    grad_y, x, size, alpha, beta, k = call
    below, above = size // 2, (size - 1) // 2
    scale = _window_mean(x * x, size, below, above).mul(alpha).add(k)
    through_scale = _window_mean(grad_y * x * scale.pow(-beta - 1), size, above, below)
    return grad_y * scale.pow(-beta) - x * through_scale.mul(2 * alpha * beta)


def _window_mean(values: torch.Tensor, size: int, below: int, above: int) -> torch.Tensor:
    """The sum over the channels c - below ... c + above, those that exist, over ``size``."""
    if values.numel() == 0:
        return values
    plane = torch.nn.functional.pad(values.flatten(2).unsqueeze(1), (0, 0, below, above))
    return (
        torch.nn.functional.avg_pool2d(plane, (size, 1), stride=1).squeeze(1).reshape(values.shape)
    )
