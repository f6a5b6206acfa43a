"""PyTorch's batch normalisation, and its residual and activation, one operator each."""

from typing import Any

import torch

from pydl import layout
from pydl.aten.bias_act import bias_act_forward
from pydl.contract.batch_norm import (
    BatchNormApply,
    BatchNormBackward,
    BatchNormForward,
    BatchNormGradInput,
    BatchNormGradSums,
    BatchNormStats,
    BatchNormTrain,
    pack,
    unpack,
)
from pydl.contract.bias_act import BiasActForward

aten = torch.ops.aten
Pair = tuple[torch.Tensor, torch.Tensor]


def batch_norm_stats(call: BatchNormStats) -> Pair:
    x = call.x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.numel() == 0:
        zeros = x.new_zeros(x.shape[1], dtype=dtype)
        return zeros, zeros.clone()
    var, mean = torch.var_mean(x.to(dtype), [0, *range(2, x.ndim)], correction=0)
    return mean, var


def batch_norm_apply(call: BatchNormApply) -> Pair:
    x, activation = call.x, call.activation
    if x.numel() == 0:
        z = x.clone()
    else:
        z = aten.native_batch_norm(
            x, call.weight, call.bias, call.mean, call.var, False, 0.0, call.eps
        )[0]
    z = z if call.residual is None else z + call.residual
    passes = None
    if call.keep_mask and activation != "none":
        passes = z > 0 if activation == "leaky_relu" else ~(z <= 0)
    y = bias_act_forward(BiasActForward(z, None, None, activation, call.slope))
    return y, layout.nothing(x, dtype=torch.uint8) if passes is None else pack(passes, x)


def batch_norm_forward(
    call: BatchNormForward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rest: list[Any]
    x, *rest = call
    mean, var = batch_norm_stats(BatchNormStats(x))
    return *batch_norm_apply(BatchNormApply(x, mean, var, *rest)), mean, var


def batch_norm_train(
    call: BatchNormTrain,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, _, _, _, running_mean, running_var, batches, momentum, *_, keep = call
    y, mask, mean, var = batch_norm_forward(call.without_running())
    if batches is not None:
        batches.add_(1)
    by: Any = (
        batches.double().reciprocal() if momentum is None and batches is not None else momentum
    )
    move(running_mean, running_var, mean, var, x.numel() // x.shape[1], by)
    return (y, mask, mean, var) if keep else (y, mask, layout.nothing(x), layout.nothing(x))


def move(
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    count: int,
    momentum: float | torch.Tensor | None,
) -> None:
    """Moves running statistics towards those of ``count`` elements a channel."""
    with torch.no_grad():
        _update(running_mean, mean, momentum)
        _update(running_var, var * (count / (count - 1)), momentum)


def _update(
    running: torch.Tensor, batch: torch.Tensor, momentum: float | torch.Tensor | None
) -> None:
    """running = (1 - momentum) running + momentum batch, in place.

    What autograd has saved of ``running`` stays valid, as with PyTorch's own operator: no step that
    has still to go backward is by these numbers.
    """
    if not torch.compiler.is_compiling():  # which follows what is written and to what
        running = running.data
    moved = running.to(batch.dtype)  # halves: round once
    if isinstance(momentum, torch.Tensor):
        momentum = momentum.to(moved.dtype)
    moved.lerp_(batch, momentum)
    if moved.dtype != running.dtype:
        running.copy_(moved)


def _passed(
    grad_y: torch.Tensor, mask: torch.Tensor | None, activation: str, slope: float, x: torch.Tensor
) -> torch.Tensor:
    if activation == "none":
        return grad_y
    stopped = grad_y * slope if activation == "leaky_relu" else torch.zeros_like(grad_y)
    return torch.where(unpack(mask, x), grad_y, stopped)


def _gradients(
    g: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    training: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of x, weight and bias."""
    wanted = [True, True, True]
    statistics = (None, None, mean, (var + eps).rsqrt()) if training else (mean, var, None, None)
    weight = torch.ones_like(mean) if weight is None else weight
    grad = aten.native_batch_norm_backward
    return grad(g.contiguous(), x, weight, *statistics, training, eps, wanted)


def batch_norm_grad_sums(call: BatchNormGradSums) -> Pair:
    grad_y, x, mean, var, mask, eps, activation, slope = call
    if x.numel() == 0:
        return torch.zeros_like(mean), torch.zeros_like(mean)
    g = _passed(grad_y, mask, activation, slope, x)
    _, sum_gx, sum_g = _gradients(g, x, mean, var, None, eps, False)
    return sum_g, sum_gx


def batch_norm_grad_input(call: BatchNormGradInput) -> Pair:
    x, mean, weight = call.x, call.mean, call.weight
    if x.numel() == 0:
        return x.clone(), x.clone() if call.wants_residual else layout.nothing(x)
    g = _passed(call.grad_y, call.mask, call.activation, call.slope, x)
    if call.sum_g is None:
        grad_x = _gradients(g, x, mean, call.var, weight, call.eps, False)[0]
    else:
        like = [-1, *[1] * (x.ndim - 2)]
        inverse = (call.var + call.eps).rsqrt()
        tilt = (call.sum_gx * inverse / call.elements).reshape(like)
        scale = (inverse if weight is None else weight * inverse).reshape(like)
        centred = g.to(mean.dtype) - (call.sum_g / call.elements).reshape(like)
        grad_x = ((centred - (x - mean.reshape(like)) * tilt) * scale).to(x.dtype)
    return grad_x, g.clone() if call.wants_residual else layout.nothing(x)


def batch_norm_backward(
    call: BatchNormBackward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    x, mean = call.x, call.mean
    if x.numel() == 0:
        residual = x.clone() if call.wants_residual else layout.nothing(x)
        return x.clone(), residual, torch.zeros_like(mean), torch.zeros_like(mean)
    g = _passed(call.grad_y, call.mask, call.activation, call.slope, x)
    grad_x, sum_gx, sum_g = _gradients(g, x, mean, call.var, call.weight, call.eps, True)
    return grad_x, g.clone() if call.wants_residual else layout.nothing(x), sum_g, sum_gx
