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


def finish(
    y: torch.Tensor, residual: torch.Tensor | None, activation: str, slope: float
) -> torch.Tensor:
    """Residual and activation of ``y``, which nobody else holds and whose maker's gradients do not
    ask for it: in its place, as ``inplace=True`` of torch.nn's activations has it. Each map more
    would be memory that is new, and cost more than the sums in it."""
    if torch._C._are_functorch_transforms_active():  # of a batch of residuals for one y
        return bias_act_forward(BiasActForward(y, None, residual, activation, slope))
    z = y if residual is None else y.add_(residual)
    if activation == "relu":
        return aten.relu_(z)
    if activation == "leaky_relu" and not z.requires_grad:
        # Otherwise the backward would need the result, which the caller may overwrite.
        return aten.leaky_relu_(z, slope)
    return bias_act_forward(BiasActForward(z, None, None, activation, slope))


def bias_act_backward(call: BiasActBackward) -> torch.Tensor:
    grad_y, saved, activation, slope = call
    if activation == "relu":
        return aten.threshold_backward(grad_y, saved, 0)
    if activation == "leaky_relu":
        return aten.leaky_relu_backward(grad_y, saved, slope, False)
    return aten.silu_backward(grad_y, saved) if activation == "silu" else grad_y
