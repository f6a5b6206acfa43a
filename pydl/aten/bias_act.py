"""PyTorch's bias, residual and activation of a map, an operator each."""

import torch

aten = torch.ops.aten


def bias_act_forward(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    slope: float,
) -> torch.Tensor:
    z = x if bias is None else x + bias.reshape(-1, *[1] * (x.ndim - 2))
    z = z if residual is None else z + residual
    if activation == "relu":
        return aten.relu(z)
    if activation == "leaky_relu":
        return aten.leaky_relu(z, slope)
    return aten.silu(z) if activation == "silu" else z


def bias_act_backward(
    grad_y: torch.Tensor, saved: torch.Tensor, activation: str, slope: float
) -> torch.Tensor:
    if activation == "relu":
        return aten.threshold_backward(grad_y, saved, 0)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(grad_y, saved, slope, False)
    return aten.silu_backward(grad_y, saved) if activation == "silu" else grad_y
