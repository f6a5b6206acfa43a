"""Batch normalisation with residual and activation from its definition (csrc/batch_norm.h has the
equations, and the order of the mask's bits)."""

import torch

from pydl import layout
from pydl.bits import pack, unpack

Pair = tuple[torch.Tensor, torch.Tensor]


def _raised(x: torch.Tensor | None) -> torch.Tensor | None:
    """Halves as float32, in which statistics and sums are."""
    return x.float() if x is not None and x.dtype in (torch.float16, torch.bfloat16) else x


def _across(vector: torch.Tensor | None, x: torch.Tensor, absent: float) -> torch.Tensor | float:
    """A number a channel, to be combined with the map ``x``."""
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


def batch_norm_stats(x: torch.Tensor) -> Pair:
    """mean, biased var of each channel; zeros where there is no element."""
    x = _raised(x)
    count = max(x.numel() // max(x.shape[1], 1), 1)
    mean = _sum(x) / count
    return mean, _sum((x - _across(mean, x, 0)) ** 2) / count


def batch_norm_apply(
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    activation: str,
    slope: float,
    keep_mask: bool,
) -> Pair:
    """y, and the mask of its activation, where it has one that is to be kept."""
    z = _normalised(x, mean, var, eps) * _across(weight, x, 1) + _across(bias, x, 0)
    z = z if residual is None else z + _raised(residual)
    y, passes = z, None
    if activation == "relu":
        passes = ~(z <= 0)
        y = torch.where(passes, z, 0)
    elif activation == "leaky_relu":
        passes = z > 0
        y = torch.where(passes, z, slope * z)
    kept = keep_mask and passes is not None
    return y.to(x.dtype), pack(passes, x) if kept else layout.nothing(x, dtype=torch.uint8)


def batch_norm_forward(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    activation: str,
    slope: float,
    keep_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """y and mask by the statistics of x, and those."""
    mean, var = batch_norm_stats(x)
    rest = weight, bias, residual, eps, activation, slope, keep_mask
    return *batch_norm_apply(x, mean, var, *rest), mean, var


def batch_norm_grad_sums(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    mask: torch.Tensor | None,
    eps: float,
    activation: str,
    slope: float,
) -> Pair:
    """The sums of g and of g * xhat: the gradients of bias and weight."""
    g = _passed(grad_y, mask, activation, slope, x)
    return _sum(g), _sum(g * _normalised(x, mean, var, eps))


def batch_norm_grad_input(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    weight: torch.Tensor | None,
    mask: torch.Tensor | None,
    sum_g: torch.Tensor | None,
    sum_gx: torch.Tensor | None,
    count: float,
    eps: float,
    activation: str,
    slope: float,
    wants_residual: bool,
) -> Pair:
    """grad_x and, where it is wanted, grad_residual; no sums: mean and var are constants."""
    g = _passed(grad_y, mask, activation, slope, x)
    centred = g
    if sum_g is not None:
        along = _normalised(x, mean, var, eps) * _across(sum_gx / count, x, 0)
        centred = g - _across(sum_g / count, x, 0) - along
    grad_x = centred * _across(weight, x, 1) / (_across(var, x, 0) + eps) ** 0.5
    return grad_x.to(x.dtype), g.to(x.dtype) if wants_residual else layout.nothing(x)


def batch_norm_backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    weight: torch.Tensor | None,
    mask: torch.Tensor | None,
    eps: float,
    activation: str,
    slope: float,
    wants_residual: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """grad_x, grad_residual and the two sums, where mean and var are those of x."""
    how = eps, activation, slope
    sums = batch_norm_grad_sums(grad_y, x, mean, var, mask, *how)
    count = max(x.numel() // max(x.shape[1], 1), 1)
    rest = weight, mask, *sums, count, *how, wants_residual
    return *batch_norm_grad_input(grad_y, x, mean, var, *rest), *sums
