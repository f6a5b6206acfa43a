"""Power-average pooling from its definition (csrc/pool_lp.h has it in words)."""

import math
from collections.abc import Sequence

import torch

from pydl.contract.pool_lp import LpPoolBackward, LpPoolForward
from pydl.reference import in_full_precision
from pydl.reference.window import taps


def _scale(
    input_size: Sequence[int],
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    like: torch.Tensor,
) -> torch.Tensor:
    """The taps of a whole window over those of each window inside the input, in scan order."""
    counts = like.new_ones(())
    for n, out, k, s in zip(input_size, output_size, kernel_size, stride, strict=True):
        inside = (torch.arange(out)[:, None] * s + torch.arange(k) < n).sum(1)
        counts = counts[..., None] * inside.to(like)
    return math.prod(kernel_size) / counts.flatten()


@in_full_precision
def lp_pool_forward(call: LpPoolForward) -> torch.Tensor:
    """The root of each window's sum of powers."""
    x, norm_type, kernel_size, stride, output_size = call
    maps = x.flatten(2)
    total = maps.new_zeros(*maps.shape[:2], math.prod(output_size))
    still = [0] * len(stride), [1] * len(stride)
    for _, position, inside in taps(
        x.shape[2:], output_size, kernel_size, stride, *still, x.device
    ):
        total = total + torch.where(inside, maps[..., position] ** norm_type, 0)
    scale = _scale(x.shape[2:], output_size, kernel_size, stride, x)
    return ((total * scale) ** (1 / norm_type)).reshape(*x.shape[:2], *output_size)


@in_full_precision
def lp_pool_backward(call: LpPoolBackward) -> torch.Tensor:
    """Every input adds up its share of the windows that hold it."""
    grad_y, x, y, norm_type, kernel_size, stride = call
    outputs, roots = y.shape[2:], y.flatten(2)
    zero = roots == 0
    shares = grad_y.flatten(2) * torch.where(zero, 1, roots) ** (1 - norm_type)
    shares = torch.where(zero, 0, shares * _scale(x.shape[2:], outputs, kernel_size, stride, x))
    total = shares.new_zeros(*shares.shape[:2], math.prod(x.shape[2:]))
    still = [0] * len(stride), [1] * len(stride)
    for _, position, inside in taps(x.shape[2:], outputs, kernel_size, stride, *still, x.device):
        total = total.index_add(-1, position, torch.where(inside, shares, 0))
    return total.reshape(x.shape) * x ** (norm_type - 1)
