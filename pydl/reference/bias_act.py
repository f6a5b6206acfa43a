"""Bias, residual and activation of a map from their definition (csrc/bias_act.h)."""

import torch

from pydl.contract.bias_act import BiasActBackward, BiasActForward
from pydl.reference import in_full_precision


@in_full_precision
def bias_act_forward(call: BiasActForward) -> torch.Tensor:
    """activation(x + bias + residual)."""
    x, bias, residual, activation, slope = call
    z = x if bias is None else x + bias.reshape(-1, *[1] * (x.ndim - 2))
    z = z if residual is None else z + residual
    if activation == "relu":
        return torch.where(z <= 0, 0, z)  # NaN stays
    if activation == "leaky_relu":
        return torch.where(z > 0, z, slope * z)
    return z / (1 + torch.exp(-z)) if activation == "silu" else z


@in_full_precision
def bias_act_backward(call: BiasActBackward) -> torch.Tensor:
    """grad_y times the activation's derivative at ``saved``."""
    grad_y, saved, activation, slope = call
    if activation == "relu":
        return torch.where(saved <= 0, 0, grad_y)
    if activation == "leaky_relu":
        return torch.where(saved > 0, grad_y, slope * grad_y)
    if activation == "silu":
        gate = 1 / (1 + torch.exp(-saved))
        return grad_y * gate * (1 + saved * (1 - gate))
    return grad_y
