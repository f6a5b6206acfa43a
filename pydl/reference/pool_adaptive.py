"""Adaptive and pyramid pooling from their definitions (csrc/pool_adaptive.h has them in words)."""

import math

import torch

from pydl.contract.pool_adaptive import (
    AdaptiveAvgPoolBackward,
    AdaptiveAvgPoolForward,
    AdaptiveMaxPoolBackward,
    AdaptiveMaxPoolForward,
    PyramidPoolBackward,
    PyramidPoolForward,
    split,
)
from pydl.reference import bins, in_full_precision


@in_full_precision
def adaptive_avg_pool_forward(call: AdaptiveAvgPoolForward) -> torch.Tensor:
    """Each bin's sum over its elements."""
    x, output_size = call
    maps = x.flatten(2)
    total = maps.new_zeros(*maps.shape[:2], math.prod(output_size))
    for position, inside in bins.taps(x.shape[2:], output_size, x.device):
        total = total + torch.where(inside, maps[..., position], 0)
    y = total / bins.counts(x.shape[2:], output_size, x)
    return y.reshape(*x.shape[:2], *output_size)


@in_full_precision
def adaptive_avg_pool_backward(call: AdaptiveAvgPoolBackward) -> torch.Tensor:
    """Every input adds up its share of the bins that hold it."""
    grad_y, input_size = call.grad_y, call.input_size
    outputs = grad_y.shape[2:]
    shares = grad_y.flatten(2) / bins.counts(input_size, outputs, grad_y)
    grad_x = shares.new_zeros(*shares.shape[:2], math.prod(input_size))
    for position, inside in bins.taps(input_size, outputs, grad_y.device):
        grad_x = grad_x.index_add(-1, position, torch.where(inside, shares, 0))
    return grad_x.reshape(*grad_y.shape[:2], *input_size)


@in_full_precision
def adaptive_max_pool_forward(call: AdaptiveMaxPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """Taps in scan order; one takes over where it is greater, NaN, or the first."""
    x, output_size, index = call
    maps = x.flatten(2)
    best = maps.new_full((*maps.shape[:2], math.prod(output_size)), -math.inf)
    flat = torch.full(best.shape, -1, dtype=torch.int64, device=x.device)
    number = torch.zeros(best.shape, dtype=torch.uint8, device=x.device)
    for tap, (position, inside) in enumerate(bins.taps(x.shape[2:], output_size, x.device)):
        value = maps[..., position]
        takes = inside & ((value > best) | value.isnan() | (flat < 0))
        best = torch.where(takes, value, best)
        flat = torch.where(takes, position, flat)
        number = torch.where(takes, tap % 256, number).to(torch.uint8)
    shape = (*x.shape[:2], *output_size)
    taken = {"none": x.new_empty(0, dtype=torch.uint8), "offset": number, "flat": flat}[index]
    return best.reshape(shape), taken if index == "none" else taken.reshape(shape)


@in_full_precision
def adaptive_max_pool_backward(call: AdaptiveMaxPoolBackward) -> torch.Tensor:
    """Every input adds up the gradients of the bins that took it."""
    grad_y, index, input_size = call
    grads, taken = grad_y.flatten(2), index.flatten(2)
    grad_x = grads.new_zeros(*grads.shape[:2], math.prod(input_size))
    for tap, (position, inside) in enumerate(
        bins.taps(input_size, grad_y.shape[2:], grad_y.device)
    ):
        chosen = taken == (tap if index.dtype == torch.uint8 else position)
        grad_x = grad_x.index_add(-1, position, torch.where(chosen & inside, grads, 0))
    return grad_x.reshape(*grad_y.shape[:2], *input_size)


@in_full_precision
def pyramid_pool_forward(call: PyramidPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """The levels pooled separately, one after the other."""
    x, levels, kind, index = call
    results, taken = [], []
    for level in split(levels, x.ndim - 2):
        if kind == "max":
            y, indices = adaptive_max_pool_forward(AdaptiveMaxPoolForward(x, level, index))
            taken.append(indices if index == "none" else indices.flatten(1))
        else:
            y = adaptive_avg_pool_forward(AdaptiveAvgPoolForward(x, level))
            taken.append(x.new_empty(0, dtype=torch.uint8))
        results.append(y.flatten(1))
    return torch.cat(results, 1), torch.cat(taken, -1)


@in_full_precision
def pyramid_pool_backward(call: PyramidPoolBackward) -> torch.Tensor:
    """The levels' gradients added up. ``input_size`` is the map's without its first axis."""
    grad_y, index, input_size, levels, kind, channels_last = call
    channels, *spatial = input_size
    grad_x, first = grad_y.new_zeros(grad_y.shape[0], *input_size), 0
    for level in split(levels, len(spatial)):
        last = first + channels * math.prod(level)
        grads = grad_y[:, first:last].reshape(-1, channels, *level)
        if kind == "max":
            taken = index[:, first:last].reshape(grads.shape)
            share = adaptive_max_pool_backward(AdaptiveMaxPoolBackward(grads, taken, spatial))
        else:
            average = AdaptiveAvgPoolBackward(grads, spatial, channels_last)
            share = adaptive_avg_pool_backward(average)
        grad_x, first = grad_x + share, last
    return grad_x
