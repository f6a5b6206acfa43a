"""Batch normalisation by the extension; definitions and arguments in ``csrc/batch_norm.h``.

On a CPU the statistics and what is made with them are one call, so that a channel is read once from
memory; on a GPU they are two.
"""

import torch

from pydl import layout
from pydl.native import Library

Pair = tuple[torch.Tensor, torch.Tensor]


def _parts(library: Library, x: torch.Tensor, like: torch.Tensor) -> torch.Tensor | None:
    """Room for the partial sums of the CUDA kernels, in the dtype of ``like``."""
    if library.name == "cpu":
        return None
    runs = library.functions.batch_norm_runs(x)
    plain = torch.contiguous_format
    return layout.empty((2, runs, x.shape[1]), x, dtype=like.dtype, layout=plain)


def _operands(
    library: Library, like: torch.memory_format, *maps: torch.Tensor | None
) -> list[torch.Tensor | None]:
    return [None if map is None else library.operand(map, like) for map in maps]


def batch_norm_stats(library: Library, x: torch.Tensor) -> Pair:
    mean, var = layout.channel_sums(x), layout.channel_sums(x)
    x = library.operand(x, layout.memory_format(x))
    arguments = (x, mean, var, _parts(library, x, mean))
    library.call("batch_norm_stats", *arguments, on=x)
    return mean, var


def _forward(library: Library, x, mean, var, weight, bias, residual, how, keep_mask, training):
    activation = how[1]
    like = layout.memory_format(x)
    y = layout.empty(x.shape, x)
    kept = keep_mask and activation != "none"
    mask = layout.mask(x) if kept else None
    x, residual = _operands(library, like, x, residual)
    arguments = (x, mean, var, weight, bias, residual, y, mask, *how, training)
    library.call("batch_norm_forward", *arguments, on=x)
    return y, mask if kept else layout.nothing(x, dtype=torch.uint8)


def batch_norm_apply(
    library: Library,
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
    how = eps, activation, slope
    return _forward(library, x, mean, var, weight, bias, residual, how, keep_mask, False)


def batch_norm_forward(
    library: Library,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    eps: float,
    activation: str,
    slope: float,
    keep_mask: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    fused = library.name == "cpu" and x.numel() > 0
    if fused:
        mean, var = layout.channel_sums(x), layout.channel_sums(x)
    else:
        mean, var = batch_norm_stats(library, x)
    how = eps, activation, slope
    made = _forward(library, x, mean, var, weight, bias, residual, how, keep_mask, fused)
    return *made, mean, var


def batch_norm_grad_sums(
    library: Library,
    grad_y: torch.Tensor,
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    mask: torch.Tensor | None,
    eps: float,
    activation: str,
    slope: float,
) -> Pair:
    sum_g, sum_gx = layout.channel_sums(x), layout.channel_sums(x)
    pixels = layout.mask_rows_are_pixels(x)
    grad_y, x = _operands(library, layout.memory_format(x), grad_y, x)
    operands = (grad_y, x, mean, var, mask, sum_g, sum_gx)
    rest = (eps, activation, slope, pixels, _parts(library, x, mean))
    library.call("batch_norm_grad_sums", *operands, *rest, on=x)
    return sum_g, sum_gx


def _grad_input(
    library: Library, grad_y, x, mean, var, weight, mask, sums, count, how, wants_residual, training
):
    grad_x = layout.empty(x.shape, x)
    grad_residual = layout.empty(x.shape, x) if wants_residual else None
    grad_y, x = _operands(library, layout.memory_format(x), grad_y, x)
    operands = (grad_y, x, mean, var, weight, mask, *sums, grad_x, grad_residual)
    library.call("batch_norm_grad_input", *operands, count, *how, training, on=x)
    return grad_x, grad_residual if wants_residual else layout.nothing(x)


def batch_norm_grad_input(
    library: Library,
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
    sums, how = (sum_g, sum_gx), (eps, activation, slope)
    operands = (grad_y, x, mean, var, weight, mask)
    return _grad_input(library, *operands, sums, count, how, wants_residual, False)


def batch_norm_backward(
    library: Library,
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
    how, fused = (eps, activation, slope), library.name == "cpu" and x.numel() > 0
    if fused:
        sums = layout.channel_sums(x), layout.channel_sums(x)
    else:
        sums = batch_norm_grad_sums(library, grad_y, x, mean, var, mask, *how)
    count = max(x.numel() // max(x.shape[1], 1), 1)
    operands = (grad_y, x, mean, var, weight, mask)
    made = _grad_input(library, *operands, sums, count, how, wants_residual, fused)
    return *made, *sums
