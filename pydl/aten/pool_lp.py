"""PyTorch's power-average pooling, which is a chain of its other operators, and its gradient."""

import math
from collections.abc import Callable

import torch

from pydl.aten.pool import avg_pool_backward, avg_pool_forward, ceil_mode
from pydl.contract.pool import AvgPoolBackward, AvgPoolForward
from pydl.contract.pool_lp import LpPoolBackward, LpPoolForward


def lp_pool_forward(call: LpPoolForward) -> torch.Tensor:
    x, norm_type, kernel_size, stride, output_size = call
    still = [0] * len(stride), [1] * len(stride)
    rounds_up = ceil_mode(x.shape[2:], output_size, kernel_size, stride, *still)
    if len(kernel_size) == 1:  # it takes one integer only
        return torch.nn.functional.lp_pool1d(x, norm_type, kernel_size[0], stride[0], rounds_up)
    functional = torch.nn.functional
    pools: tuple[Callable[..., torch.Tensor], ...] = functional.lp_pool2d, functional.lp_pool3d
    return pools[len(kernel_size) - 2](x, norm_type, tuple(kernel_size), tuple(stride), rounds_up)


def lp_pool_backward(call: LpPoolBackward) -> torch.Tensor:
    # Its chain in reverse: the power of the sum of means, the mean, the power. No gradient passes
    # where a mean is 0.
    grad_y, x, y, norm_type, kernel_size, stride = call
    window = list(kernel_size), list(stride), [0] * len(stride)
    mean = avg_pool_forward(AvgPoolForward(x.pow(norm_type), *window, y.shape[2:], True, 0))
    taps = math.prod(kernel_size)
    slope = (mean * taps).pow(1 / norm_type - 1) * (taps / norm_type)
    grad_mean = torch.where(mean == 0, 0, grad_y * slope)
    through = AvgPoolBackward(grad_mean, x.shape[2:], *window, True, 0, False)
    grad_power = avg_pool_backward(through)
    return grad_power * (norm_type * x.pow(norm_type - 1))
