"""PyTorch's bias, residual and activation of a map, one operator each."""

import torch

from pydl.contract.bias_act import BiasActBackward, BiasActForward

aten = torch.ops.aten


def bias_act_forward(call: BiasActForward) -> torch.Tensor:
    x, bias, residual, activation, slope = call
    z = x if bias is None else x + bias.reshape(-1, *[1] * (x.ndim - 2))
    z = z if residual is None else z + residual
    if activation == "relu":
        return aten.relu(z)
    if activation == "leaky_relu":
        return aten.leaky_relu(z, slope)
    return aten.silu(z) if activation == "silu" else z


def bias_act_backward(call: BiasActBackward) -> torch.Tensor:
    grad_y, saved, activation, slope = call
    if activation == "relu":
        return aten.threshold_backward(grad_y, saved, 0)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(grad_y, saved, slope, False)
    return aten.silu_backward(grad_y, saved) if activation == "silu" else grad_y
