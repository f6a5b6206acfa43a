"""Convolution from its definition, and its three gradients: a product of matrices for every tap."""

import math

import torch

from pydl.contract.bias_act import BiasActForward
from pydl.contract.conv import ConvForward, ConvGradBias, ConvGradInput, ConvGradWeight
from pydl.reference import in_full_precision
from pydl.reference.bias_act import bias_act_forward
from pydl.reference.window import taps

_PRODUCT = "ngcp,gfc->ngfp"  # n batch, g group, c channel within it, f filter within it, p position


def _grouped(x: torch.Tensor, groups: int) -> torch.Tensor:
    """(N, C, spatial...) as (N, G, C / G, positions)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))


@in_full_precision
def conv_forward(call: ConvForward) -> torch.Tensor:
    """activation(residual + bias[f] + sum over c, t of x[n, c, o s - p + t d] weight[f, c, t])."""
    x, weight, bias, residual, stride, padding, dilation, groups, activation, slope = call
    window = stride, padding, dilation
    kernel_size = weight.shape[2:]
    output_size = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], kernel_size, *window, strict=True)
    ]
    maps = _grouped(x, groups)  # (N, G, C/G, positions)
    filters = weight.unflatten(0, (groups, weight.shape[0] // groups))  # (G, F/G, C/G, K...)
    y = x.new_zeros(x.shape[0], groups, filters.shape[1], math.prod(output_size))
    for tap, position, inside in taps(x.shape[2:], output_size, kernel_size, *window, x.device):
        read = torch.where(inside, maps[..., position], 0)
        of_tap = (..., *tap)
        y = y + torch.einsum(_PRODUCT, read, filters[of_tap])
    y = y.reshape(x.shape[0], weight.shape[0], *output_size)
    return bias_act_forward(BiasActForward(y, bias, residual, activation, slope))


@in_full_precision
def conv_grad_input(call: ConvGradInput) -> torch.Tensor:
    """Every input adds up grad_y * weight over the outputs and taps that read it."""
    grad_y, weight, input_size, stride, padding, dilation, groups = call
    grads = _grouped(grad_y, groups)  # (N, G, F/G, positions)
    filters = weight.unflatten(0, (groups, weight.shape[0] // groups)).transpose(
        1, 2
    )  # (G, C/G, F/G, K...)
    grad_x = grad_y.new_zeros(grad_y.shape[0], groups, weight.shape[1], math.prod(input_size))
    outputs = grad_y.shape[2:]
    for tap, position, inside in taps(
        input_size, outputs, weight.shape[2:], stride, padding, dilation, grad_y.device
    ):
        of_tap = (..., *tap)
        share = torch.einsum(_PRODUCT, grads, filters[of_tap])
        grad_x = grad_x.index_add(-1, position[inside], share[..., inside])
    return grad_x.reshape(grad_y.shape[0], groups * weight.shape[1], *input_size)


@in_full_precision
def conv_grad_weight(call: ConvGradWeight) -> torch.Tensor:
    """Every weight adds up grad_y * x over the batch and the outputs."""
    grad_y, x, kernel_size, stride, padding, dilation, groups = call
    grads, maps = _grouped(grad_y, groups), _grouped(x, groups)
    outputs = grad_y.shape[2:]
    of_taps = [
        torch.einsum("ngfp,ngcp->gfc", grads, torch.where(inside, maps[..., position], 0))
        for _, position, inside in taps(
            x.shape[2:], outputs, kernel_size, stride, padding, dilation, x.device
        )
    ]
    grad_weight = torch.stack(of_taps, dim=-1)  # (G, F/G, C/G, taps)
    return grad_weight.reshape(grad_y.shape[1], x.shape[1] // groups, *kernel_size)


@in_full_precision
def conv_grad_bias(call: ConvGradBias) -> torch.Tensor:
    """The sum over everything but the channels."""
    grad_y = call.grad_y
    return grad_y.flatten(2).sum((0, 2))
