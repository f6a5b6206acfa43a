"""Batch normalisation over the batches of several processes: what they exchange, and
autograd."""

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from pydl import backends
from pydl.aten.batch_norm import move
from pydl.ops import checks
from pydl.ops.batch_norm import (
    apply_stats,
    as_map,
    check_parameters,
    grad_input,
    grad_sums,
    in_sums_dtype,
    stats,
)
from pydl.ops.derivatives import Function, save


def group_of(group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """The group to normalise over (the whole world by default), or None where there is no other
    process."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    group = dist.group.WORLD if group is None else group
    return group if dist.get_world_size(group) > 1 else None


def _gathered(own: torch.Tensor, group: dist.ProcessGroup) -> list[torch.Tensor]:
    """This tensor of every rank, in the order of the ranks: the same on each of them."""
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, own, group)
    return everyone


def joined_stats(
    mean: torch.Tensor, var: torch.Tensor, count: int, group: dist.ProcessGroup
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Mean, biased variance and number of values of all ranks' together, from those of each.

    Chan, Golub and LeVeque's formula in float64, in the order of the ranks; a rank without values
    has no say.
    """
    own = torch.cat([mean.double(), var.double(), mean.new_tensor([count], dtype=torch.float64)])
    channels, total, joined, squares = mean.numel(), 0, None, None
    for theirs in _gathered(own, group):
        n = int(theirs[-1].item())
        if n == 0:
            continue
        its_mean, its_squares = theirs[:channels], theirs[channels:-1] * n
        if total == 0:
            total, joined, squares = n, its_mean, its_squares
            continue
        distance = its_mean - joined
        joined = joined * (total / (total + n)) + its_mean * (n / (total + n))
        squares = squares + its_squares + distance.square() * (total * n / (total + n))
        total += n
    if joined is None:
        return mean, var, 0
    return joined.to(mean.dtype), (squares / total).to(var.dtype), total


class _SyncBatchNorm(Function):
    """y by statistics that are given, and the gradients through those of all ranks."""

    @staticmethod
    def forward(x, weight, bias, mean, var, count, eps, group, backend):
        affine = in_sums_dtype(weight, x), in_sums_dtype(bias, x), None
        y, _ = apply_stats(x, mean, var, *affine, eps, "none", 0.0, False, backend)
        return y

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, bias, mean, var, *ctx.arguments = inputs
        ctx.bias_dtype = None if bias is None else bias.dtype
        save(ctx, output, x, weight, mean, var)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        x, weight, mean, var = ctx.saved_tensors
        count, eps, group, backend = ctx.arguments
        for_x, for_weight, for_bias, *_ = ctx.needs_input_grad
        how = eps, "none", 0.0
        sum_g, sum_gx = grad_sums(grad_y, x, mean, var, None, *how, backend)
        grad_x = None
        if for_x:
            everyone = _gathered(torch.cat([sum_g, sum_gx]), group)
            total = torch.stack([each.double() for each in everyone]).sum(0).to(sum_g.dtype)
            operands = grad_y, x, mean, var, in_sums_dtype(weight, x), None
            rest = *total.chunk(2), float(count), *how, False, backend
            grad_x, _ = grad_input(*operands, *rest)
        return (
            grad_x,
            sum_gx.to(weight.dtype) if for_weight else None,
            sum_g.to(ctx.bias_dtype) if for_bias else None,
            *[None] * 6,
        )


def batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    momentum: float | torch.Tensor | None,
    eps: float,
    group: dist.ProcessGroup,
    backend: str | None,
) -> torch.Tensor:
    """Training over all ranks of ``group``. Every rank must call, with a batch of any size."""
    checks.tensor("batch_norm", "input", x)
    check_parameters(x, running_mean, running_var, weight, bias)
    if eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    # Each rank chooses by its own batch: what the ranks tell each other is the same from any
    # backend.
    backend = backends.choose("batch_norm", backend, x)
    map = as_map(x).resolve_neg()
    mean, var = stats(map.detach(), backend)
    mean, var, count = joined_stats(mean, var, x.numel() // x.shape[1], group)
    if count == 1:  # known to all ranks, so none is left waiting
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {x.shape}"
        )
    if running_mean is not None and count > 0:
        move(running_mean, running_var, mean, var, count, momentum)
    y = _SyncBatchNorm.apply(map, weight, bias, mean, var, count, float(eps), group, backend)
    return y if map.shape == x.shape else y.reshape(x.shape)
