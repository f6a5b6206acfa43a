"""Max unpooling from its definition (csrc/unpool.h has it in words)."""

import math

import torch

from pydl.contract.unpool import MaxUnpoolBackward, MaxUnpoolForward, check_positions


def max_unpool_forward(call: MaxUnpoolForward) -> torch.Tensor:
    """Places ask who names them last, and fetch its value."""
    x, index, output_size = call
    check_positions(index, output_size)
    values, places = x.flatten(2), index.flatten(2)
    order = torch.arange(1, values.shape[2] + 1, device=x.device).expand(values.shape)
    winner = order.new_zeros(*x.shape[:2], math.prod(output_size))
    winner = winner.scatter_reduce(2, places, order, "amax")
    fetched = values.gather(2, (winner - 1).clamp_min(0))
    return torch.where(winner > 0, fetched, 0).reshape(*x.shape[:2], *output_size)


def max_unpool_backward(call: MaxUnpoolBackward) -> torch.Tensor:
    """Every element fetches the gradient of the place it named."""
    grad_y, index = call
    check_positions(index, grad_y.shape[2:])
    return grad_y.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)
