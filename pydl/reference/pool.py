"""Max and average pooling from their definitions (csrc/pool.h has them in words)."""

import math
from collections.abc import Sequence

import torch

from pydl.contract.pool import AvgPoolBackward, AvgPoolForward, MaxPoolBackward, MaxPoolForward
from pydl.reference import in_full_precision
from pydl.reference.window import taps


@in_full_precision
def max_pool_forward(call: MaxPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """Taps in scan order; one takes over where it is greater, NaN, or the first one inside."""
    x, kernel_size, stride, padding, dilation, output_size, index = call
    maps = x.flatten(2)
    best = maps.new_full((*maps.shape[:2], math.prod(output_size)), -math.inf)
    flat = torch.full(best.shape, -1, dtype=torch.int64, device=x.device)
    number = torch.zeros(best.shape, dtype=torch.uint8, device=x.device)
    windows = taps(x.shape[2:], output_size, kernel_size, stride, padding, dilation, x.device)
    for tap_number, (_, position, inside) in enumerate(windows):
        value = maps[..., position]
        takes = inside & ((value > best) | value.isnan() | (flat < 0))
        best = torch.where(takes, value, best)
        flat = torch.where(takes, position, flat)
        number = torch.where(takes, tap_number % 256, number).to(torch.uint8)
    shape = (*x.shape[:2], *output_size)
    taken = {"none": x.new_empty(0, dtype=torch.uint8), "offset": number, "flat": flat}[index]
    return best.reshape(shape), taken if index == "none" else taken.reshape(shape)


@in_full_precision
def max_pool_backward(call: MaxPoolBackward) -> torch.Tensor:
    """Every input adds up the gradients of the windows that took it."""
    grad_y, index, input_size, kernel_size, stride, padding, dilation = call
    grads, taken = grad_y.flatten(2), index.flatten(2)
    grad_x = grads.new_zeros(*grads.shape[:2], math.prod(input_size))
    windows = taps(
        input_size, grad_y.shape[2:], kernel_size, stride, padding, dilation, grad_y.device
    )
    for tap_number, (_, position, inside) in enumerate(windows):
        chosen = taken == (tap_number if index.dtype == torch.uint8 else position)
        share = torch.where(chosen & inside, grads, 0)
        grad_x = grad_x.index_add(-1, position, share)
    return grad_x.reshape(*grad_y.shape[:2], *input_size)


def _divisors(
    input_size: Sequence[int],
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    count_include_pad: bool,
    divisor: int,
    like: torch.Tensor,
) -> torch.Tensor:
    """What each window's sum is divided by, in scan order of the outputs."""
    if divisor:
        return like.new_full((math.prod(output_size),), divisor)
    counts = like.new_ones(())
    for n, out, k, s, p in zip(input_size, output_size, kernel_size, stride, padding, strict=True):
        reach = p if count_include_pad else 0
        places = (torch.arange(out)[:, None] * s - p) + torch.arange(k)
        count = ((places >= -reach) & (places < n + reach)).sum(1)
        counts = counts[..., None] * count.to(like)
    return counts.flatten()


@in_full_precision
def avg_pool_forward(call: AvgPoolForward) -> torch.Tensor:
    """Each window's sum over its divisor."""
    x, kernel_size, stride, padding, output_size, count_include_pad, divisor = call
    maps = x.flatten(2)
    total = maps.new_zeros(*maps.shape[:2], math.prod(output_size))
    dilation = [1] * len(output_size)
    for _, position, inside in taps(
        x.shape[2:], output_size, kernel_size, stride, padding, dilation, x.device
    ):
        total = total + torch.where(inside, maps[..., position], 0)
    y = total / _divisors(
        x.shape[2:], output_size, kernel_size, stride, padding, count_include_pad, divisor, x
    )
    return y.reshape(*x.shape[:2], *output_size)


@in_full_precision
def avg_pool_backward(call: AvgPoolBackward) -> torch.Tensor:
    """Every input adds up its share of the windows that hold it."""
    grad_y, input_size, kernel_size, stride, padding, count_include_pad, divisor, _ = call
    outputs = grad_y.shape[2:]
    window = kernel_size, stride, padding
    divisors = _divisors(input_size, outputs, *window, count_include_pad, divisor, grad_y)
    shares = grad_y.flatten(2) / divisors
    grad_x = shares.new_zeros(*shares.shape[:2], math.prod(input_size))
    dilation = [1] * len(outputs)
    for _, position, inside in taps(input_size, outputs, *window, dilation, grad_y.device):
        grad_x = grad_x.index_add(-1, position, torch.where(inside, shares, 0))
    return grad_x.reshape(*grad_y.shape[:2], *input_size)
