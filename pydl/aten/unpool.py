"""PyTorch's max unpooling and its gradient, for one to three spatial axes."""

import torch

from pydl.contract.unpool import MaxUnpoolBackward, MaxUnpoolForward, check_positions

aten = torch.ops.aten


def max_unpool_forward(call: MaxUnpoolForward) -> torch.Tensor:
    x, index, output_size = call
    if len(output_size) == 1:  # PyTorch's 1-D unpooling is its 2-D unpooling with one row
        rows = x.unsqueeze(2), index.unsqueeze(2), [1, *output_size]
        return max_unpool_forward(MaxUnpoolForward(*rows)).squeeze(2)
    if len(output_size) == 2:
        return aten.max_unpool2d(x, index, output_size)
    # The strides and padding, which it wants as well, are only looked at.
    return aten.max_unpool3d(x, index, output_size, [1, 1, 1], [0, 0, 0])


def max_unpool_backward(call: MaxUnpoolBackward) -> torch.Tensor:
    grad_y, index = call
    check_positions(index, grad_y.shape[2:])
    return grad_y.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)
