"""Locally connected layers from their definition (csrc/local.h), and their gradients."""

import math
from collections.abc import Iterator, Sequence

import torch

from pydl.reference import in_full_precision
from pydl.reference.window import taps


def _gathered(
    x: torch.Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """What each output reads: (N, C * taps, positions), 0 outside."""
    maps = x.flatten(2)
    of_taps = [
        torch.where(inside, maps[..., position], 0)
        for _, position, inside in taps(
            x.shape[2:], output_size, kernel_size, stride, padding, dilation, x.device
        )
    ]
    return torch.stack(of_taps, dim=2).flatten(1, 2)


@in_full_precision
def local_forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """bias[f, o] + sum over c, t of x[n, c, o s - p + t d] weight[f, c taps + t, o]."""
    output_size = weight.shape[2:]
    read = _gathered(x, output_size, kernel_size, stride, padding, dilation)
    y = torch.einsum("nkp,fkp->nfp", read, weight.flatten(2)).unflatten(2, output_size)
    return y if bias is None else y + bias


@in_full_precision
def local_grad_input(
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """Every input adds up grad_y * weight over the filters, outputs and taps that read it."""
    channels = weight.shape[1] // math.prod(kernel_size)
    shares = torch.einsum("nfp,fkp->nkp", grad_y.flatten(2), weight.flatten(2))
    shares = shares.unflatten(1, (channels, math.prod(kernel_size)))  # (N, C, taps, positions)
    grad_x = grad_y.new_zeros(grad_y.shape[0], channels, math.prod(input_size))
    places: Iterator = taps(
        input_size, grad_y.shape[2:], kernel_size, stride, padding, dilation, grad_y.device
    )
    for tap, (_, position, inside) in enumerate(places):
        grad_x = grad_x.index_add(-1, position[inside], shares[:, :, tap, inside])
    return grad_x.unflatten(2, tuple(input_size))


@in_full_precision
def local_grad_weight(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """Every weight adds up grad_y * x over the batch."""
    output_size = grad_y.shape[2:]
    read = _gathered(x, output_size, kernel_size, stride, padding, dilation)
    return torch.einsum("nfp,nkp->fkp", grad_y.flatten(2), read).unflatten(2, output_size)
