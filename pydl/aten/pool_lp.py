"""PyTorch's power-average pooling, which is a chain of its other operators, and its gradient."""

from collections.abc import Sequence

import torch

from pydl.aten.pool import ceil_mode


def lp_pool_forward(
    x: torch.Tensor,
    norm_type: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    output_size: Sequence[int],
) -> torch.Tensor:
    still = [0] * len(stride), [1] * len(stride)
    rounds_up = ceil_mode(x.shape[2:], output_size, kernel_size, stride, *still)
    if len(kernel_size) == 1:  # one integer is what it wants
        return torch.nn.functional.lp_pool1d(x, norm_type, kernel_size[0], stride[0], rounds_up)
    functional = torch.nn.functional
    pool = functional.lp_pool2d if len(kernel_size) == 2 else functional.lp_pool3d
    return pool(x, norm_type, tuple(kernel_size), tuple(stride), rounds_up)


def lp_pool_backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    norm_type: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
) -> torch.Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        result = lp_pool_forward(leaf, norm_type, kernel_size, stride, y.shape[2:])
    return torch.autograd.grad(result, leaf, grad_y)[0]
