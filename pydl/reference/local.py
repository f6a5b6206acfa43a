"""Locally connected layers from their definition (csrc/local.h): a gather for every tap."""

import math
from collections.abc import Sequence

import torch

from pydl.contract.local import LocalForward, LocalGradInput, LocalGradWeight
from pydl.reference import in_full_precision
from pydl.reference.window import taps


def _windows(
    x: torch.Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """(N, C, taps, positions): what each tap of each window reads."""
    maps = x.flatten(2)
    return torch.stack(
        [
            torch.where(inside, maps[..., position], 0)
            for _, position, inside in taps(
                x.shape[2:], output_size, kernel_size, stride, padding, dilation, x.device
            )
        ],
        dim=2,
    )


@in_full_precision
def local_forward(call: LocalForward) -> torch.Tensor:
    """bias[f, o] + sum over c, t of x[n, c, o s - p + t d] * weight[f, c taps + t, o]."""
    x, weight, bias, kernel_size, stride, padding, dilation = call
    output_size = weight.shape[2:]
    windows = _windows(x, output_size, kernel_size, stride, padding, dilation)
    filters = weight.flatten(2).unflatten(1, (x.shape[1], math.prod(kernel_size)))
    y = torch.einsum("nctp,fctp->nfp", windows, filters)
    y = y.reshape(x.shape[0], weight.shape[0], *output_size)
    return y if bias is None else y + bias


@in_full_precision
def local_grad_input(call: LocalGradInput) -> torch.Tensor:
    """Every input adds up grad_y * weight over the windows and taps that read it."""
    grad_y, weight, input_size, kernel_size, stride, padding, dilation = call
    count = math.prod(kernel_size)
    filters = weight.flatten(2).unflatten(1, (weight.shape[1] // count, count))
    shares = torch.einsum("nfp,fctp->tncp", grad_y.flatten(2), filters)
    grad_x = grad_y.new_zeros(grad_y.shape[0], filters.shape[1], math.prod(input_size))
    windows = taps(
        input_size, grad_y.shape[2:], kernel_size, stride, padding, dilation, grad_y.device
    )
    for share, (_, position, inside) in zip(shares, windows, strict=True):
        grad_x = grad_x.index_add(-1, position[inside], share[..., inside])
    return grad_x.reshape(grad_y.shape[0], filters.shape[1], *input_size)


@in_full_precision
def local_grad_weight(call: LocalGradWeight) -> torch.Tensor:
    """Every weight adds up grad_y * x over the batch."""
    grad_y, x, kernel_size, stride, padding, dilation = call
    windows = _windows(x, grad_y.shape[2:], kernel_size, stride, padding, dilation)
    grad_weight = torch.einsum("nfp,nctp->fctp", grad_y.flatten(2), windows)
    return grad_weight.reshape(
        grad_y.shape[1], x.shape[1] * math.prod(kernel_size), *grad_y.shape[2:]
    )
