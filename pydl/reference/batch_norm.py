"""Batch normalisation with residual and activation from its definition (csrc/batch_norm.h has the
equations, and the order of the mask's bits)."""

from typing import Any

import torch

from pydl import layout
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

Pair = tuple[torch.Tensor, torch.Tensor]


def _raised(x: torch.Tensor | None) -> torch.Tensor | None:
    """Halves as float32, in which statistics and sums are."""
    return x.float() if x is not None and x.dtype in (torch.float16, torch.bfloat16) else x


def _across(vector: torch.Tensor | None, x: torch.Tensor, absent: float) -> torch.Tensor | float:
    """One number per channel, shaped to be combined with the map ``x``."""
    return absent if vector is None else vector.reshape(-1, *[1] * (x.ndim - 2))


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum([0, *range(2, x.ndim)])


def _normalised(x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, eps: float) -> torch.Tensor:
    return (_raised(x) - _across(mean, x, 0)) / (_across(var, x, 0) + eps) ** 0.5


def _passed(
    grad_y: torch.Tensor, mask: torch.Tensor | None, activation: str, slope: float, x: torch.Tensor
) -> torch.Tensor:
    """grad_y times the derivative of the activation: g."""
    grad_y = _raised(grad_y)
    if activation == "none":
        return grad_y
    stopped = slope * grad_y if activation == "leaky_relu" else torch.zeros_like(grad_y)
    return torch.where(unpack(mask, x), grad_y, stopped)


def batch_norm_stats(call: BatchNormStats) -> Pair:
    """mean, biased var of each channel; zeros where there is no element."""
    x = _raised(call.x)
    count = max(x.numel() // max(x.shape[1], 1), 1)
    mean = _sum(x) / count
    return mean, _sum((x - _across(mean, x, 0)) ** 2) / count


def batch_norm_apply(call: BatchNormApply) -> Pair:
    """y, and the mask of its activation, where it has one that is to be kept."""
    x = call.x
    xhat = _normalised(x, call.mean, call.var, call.eps)
    z = xhat * _across(call.weight, x, 1) + _across(call.bias, x, 0)
    z = z if call.residual is None else z + _raised(call.residual)
    y, passes = z, None
    if call.activation == "relu":
        passes = ~(z <= 0)
        y = torch.where(passes, z, 0)
    elif call.activation == "leaky_relu":
        passes = z > 0
        y = torch.where(passes, z, call.slope * z)
    kept = call.keep_mask and passes is not None
    return y.to(x.dtype), pack(passes, x) if kept else layout.nothing(x, dtype=torch.uint8)


def batch_norm_forward(
    call: BatchNormForward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """y and mask by the statistics of x, and those."""
    rest: list[Any]
    x, *rest = call
    mean, var = batch_norm_stats(BatchNormStats(x))
    return *batch_norm_apply(BatchNormApply(x, mean, var, *rest)), mean, var


def batch_norm_train(
    call: BatchNormTrain,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same, kept or not, and running statistics moved."""
    x, _, _, _, running_mean, running_var, batches, momentum, *_, keep = call
    y, mask, mean, var = batch_norm_forward(call.without_running())
    if batches is not None:
        batches += 1
    by: Any = 1 / batches.double() if momentum is None and batches is not None else momentum
    count = x.numel() // x.shape[1]
    unbiased = var * count / (count - 1)
    with torch.no_grad():
        for running, to in ((running_mean, mean), (running_var, unbiased)):
            running.data.copy_((1 - by) * _raised(running) + by * to)
    return (y, mask, mean, var) if keep else (y, mask, layout.nothing(x), layout.nothing(x))


def batch_norm_grad_sums(call: BatchNormGradSums) -> Pair:
    """The sums of g and of g * xhat: the gradients of bias and weight."""
    grad_y, x, mean, var, mask, eps, activation, slope = call
    g = _passed(grad_y, mask, activation, slope, x)
    return _sum(g), _sum(g * _normalised(x, mean, var, eps))


def batch_norm_grad_input(call: BatchNormGradInput) -> Pair:
    """grad_x and, where it is wanted, grad_residual; no sums: mean and var are constants."""
    x = call.x
    g = _passed(call.grad_y, call.mask, call.activation, call.slope, x)
    centred = g
    if call.sum_g is not None:
        xhat = _normalised(x, call.mean, call.var, call.eps)
        along = xhat * _across(call.sum_gx / call.elements, x, 0)
        centred = g - _across(call.sum_g / call.elements, x, 0) - along
    grad_x = centred * _across(call.weight, x, 1) / (_across(call.var, x, 0) + call.eps) ** 0.5
    return grad_x.to(x.dtype), g.to(x.dtype) if call.wants_residual else layout.nothing(x)


def batch_norm_backward(
    call: BatchNormBackward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """grad_x, grad_residual and the two sums, where mean and var are those of x."""
    how: list[Any]
    grad_y, x, mean, var, weight, mask, *how, wants_residual = call
    sums = batch_norm_grad_sums(BatchNormGradSums(grad_y, x, mean, var, mask, *how))
    count = max(x.numel() // max(x.shape[1], 1), 1)
    rest: tuple[Any, ...] = weight, mask, *sums, count, *how, wants_residual
    return *batch_norm_grad_input(BatchNormGradInput(grad_y, x, mean, var, *rest)), *sums
