"""Locally connected layers of PyTorch's parts: views of the windows and batched products.

PyTorch has no operator for them.
"""

import itertools
import math
from collections.abc import Sequence
from types import EllipsisType

import torch

from pydl.contract.local import LocalForward, LocalGradInput, LocalGradWeight


def _windows(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """(N, C * taps, *out): unfold along each axis; a copy."""
    x = torch.nn.functional.pad(x, [side for p in reversed(padding) for side in (p, p)])
    axes = len(kernel_size)
    for axis, (k, s, d) in enumerate(zip(kernel_size, stride, dilation, strict=True), start=2):
        x = x.unfold(axis, d * (k - 1) + 1, s)[..., ::d]
    order = (0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    return x.permute(order).flatten(1, 1 + axes)


def local_forward(call: LocalForward) -> torch.Tensor:
    x, weight, bias, kernel_size, stride, padding, dilation = call
    windows = _windows(x, kernel_size, stride, padding, dilation)
    y = torch.einsum("nk...,fk...->nf...", windows, weight)
    return y if bias is None else y + bias


def local_grad_input(call: LocalGradInput) -> torch.Tensor:
    grad_y, weight, input_size, kernel_size, stride, padding, dilation = call
    channels, out = weight.shape[1] // math.prod(kernel_size), grad_y.shape[2:]
    padded = [n + 2 * p for n, p in zip(input_size, padding, strict=True)]
    grad_x = grad_y.new_zeros(grad_y.shape[0], channels, *padded)
    shares = torch.einsum("nf...,fk...->nk...", grad_y, weight)
    shares = shares.unflatten(1, (channels, math.prod(kernel_size)))
    for t, tap in enumerate(itertools.product(*map(range, kernel_size))):
        reads: tuple[slice | EllipsisType, ...] = (
            ...,
            *(
                slice(at * d, at * d + s * (o - 1) + 1, s)
                for at, s, d, o in zip(tap, stride, dilation, out, strict=True)
            ),
        )
        grad_x[reads] += shares[:, :, t]
    inside: tuple[slice | EllipsisType, ...] = (
        ...,
        *(slice(p, p + n) for n, p in zip(input_size, padding, strict=True)),
    )
    return grad_x[inside].contiguous()


def local_grad_weight(call: LocalGradWeight) -> torch.Tensor:
    grad_y, x, kernel_size, stride, padding, dilation = call
    windows = _windows(x, kernel_size, stride, padding, dilation)
    return torch.einsum("nf...,nk...->fk...", grad_y, windows)
