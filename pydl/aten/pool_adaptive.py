"""PyTorch's adaptive pooling and its gradients, for one to three spatial axes; a pyramid as one
level after the other."""

import math

import torch

from pydl.contract.pool_adaptive import (
    AdaptiveAvgPoolBackward,
    AdaptiveAvgPoolForward,
    AdaptiveMaxPoolBackward,
    AdaptiveMaxPoolForward,
    PyramidPoolBackward,
    PyramidPoolForward,
    flat_from_offset,
    offset_from_flat,
    split,
)

aten = torch.ops.aten


def adaptive_avg_pool_forward(call: AdaptiveAvgPoolForward) -> torch.Tensor:
    x, output_size = call
    pool = getattr(torch.nn.functional, f"adaptive_avg_pool{len(output_size)}d")
    return pool(x, tuple(output_size))


def adaptive_avg_pool_backward(call: AdaptiveAvgPoolBackward) -> torch.Tensor:
    grad_y, input_size, channels_last = call
    if len(input_size) == 1:  # PyTorch's 1-D pooling is its 2-D pooling with one row
        one_row = grad_y.unsqueeze(2), [1, *input_size], channels_last
        return adaptive_avg_pool_backward(AdaptiveAvgPoolBackward(*one_row)).squeeze(2)
    x = grad_y.new_empty((*grad_y.shape[:2], *input_size))  # only its shape counts
    backward = getattr(aten, f"_adaptive_avg_pool{len(input_size)}d_backward")
    return backward(grad_y, x)


def adaptive_max_pool_forward(call: AdaptiveMaxPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    x, output_size, index = call
    pool = getattr(torch.nn.functional, f"adaptive_max_pool{len(output_size)}d")
    y, flat = pool(x, tuple(output_size), return_indices=True)
    if index == "flat":
        return y, flat
    if index == "offset":
        return y, offset_from_flat(flat, x.shape[2:], output_size)
    return y, x.new_empty(0, dtype=torch.uint8)


def adaptive_max_pool_backward(call: AdaptiveMaxPoolBackward) -> torch.Tensor:
    grad_y, index, input_size = call
    flat = index
    if index.dtype == torch.uint8:
        flat = flat_from_offset(index, input_size, grad_y.shape[2:])
    if len(input_size) == 1:
        one_row = grad_y.unsqueeze(2), flat.unsqueeze(2), [1, *input_size]
        return adaptive_max_pool_backward(AdaptiveMaxPoolBackward(*one_row)).squeeze(2)
    x = grad_y.new_empty((*grad_y.shape[:2], *input_size))  # only its shape counts
    backward = getattr(aten, f"adaptive_max_pool{len(input_size)}d_backward")
    return backward(grad_y.contiguous(), x, flat.contiguous())


def pyramid_pool_forward(call: PyramidPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
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


def pyramid_pool_backward(call: PyramidPoolBackward) -> torch.Tensor:
    grad_y, index, input_size, levels, kind, channels_last = call
    channels, *spatial = input_size
    grad_x, first = None, 0
    for level in split(levels, len(spatial)):
        last = first + channels * math.prod(level)
        grads = grad_y[:, first:last].reshape(-1, channels, *level)
        if kind == "max":
            taken = index[:, first:last].reshape(grads.shape)
            share = adaptive_max_pool_backward(AdaptiveMaxPoolBackward(grads, taken, spatial))
        else:
            average = AdaptiveAvgPoolBackward(grads, spatial, channels_last)
            share = adaptive_avg_pool_backward(average)
        grad_x = share if grad_x is None else grad_x + share
        first = last
    return grad_x
