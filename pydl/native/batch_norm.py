"""Batch normalisation by the extension; definitions and arguments in ``csrc/batch_norm.h``.

On a CPU the statistics and what is made with them are one call, so that a channel is read once from
memory; on a GPU they are two.
"""

from typing import Any

import torch

from pydl import layout, plan
from pydl.contract.batch_norm import (
    BatchNormApply,
    BatchNormBackward,
    BatchNormForward,
    BatchNormGradInput,
    BatchNormGradSums,
    BatchNormStats,
    BatchNormTrain,
    counted,
    mask_rows_are_pixels,
    room,
    sums,
)
from pydl.contract.call import Four, Pair, Tensor
from pydl.native import Library


def _parts(library: Library, x: Tensor, like: Tensor) -> Tensor | None:
    """Room for the partial sums of the CUDA kernels, in the dtype of ``like``."""
    if library.name == "cpu":
        return None
    runs = plan.geometry(library.functions.batch_norm_runs, x)
    plain = torch.contiguous_format
    return layout.empty((2, runs, x.shape[1]), x, dtype=like.dtype, layout=plain)


def _operands(
    library: Library, like: torch.memory_format, *maps: Tensor | None
) -> list[Tensor | None]:
    return [None if map is None else library.operand(map, like) for map in maps]


def batch_norm_stats(library: Library, call: BatchNormStats) -> Pair:
    (x,) = call
    mean, var = call.results()
    x = library.operand(x, layout.memory_format(x))
    library.call("batch_norm_stats", x, mean, var, _parts(library, x, mean), on=x)
    return mean, var


def _runs(library: Library, x: Tensor) -> int:
    """Into how many runs of pixels the sums over a channel are divided."""
    return 0 if library.name == "cpu" else plan.geometry(library.functions.batch_norm_runs, x)


def _forward(library: Library, call: BatchNormApply, training: bool) -> Pair:
    x, mean, var, weight, bias, residual, *how, keep_mask = call
    y, mask = call.results()
    x, residual = _operands(library, layout.memory_format(x), x, residual)
    kept = mask if keep_mask and call.activation != "none" else None
    arguments = x, mean, var, weight, bias, residual, y, kept, *how, training
    library.call("batch_norm_forward", *arguments, on=x)
    return y, mask


def batch_norm_apply(library: Library, call: BatchNormApply) -> Pair:
    return _forward(library, call, False)


def batch_norm_forward(library: Library, call: BatchNormForward) -> Four:
    rest: list[Any]
    x, *rest = call
    fused = library.name == "cpu" and x.numel() > 0
    mean, var = sums(x) if fused else batch_norm_stats(library, BatchNormStats(x))
    return *_forward(library, BatchNormApply(x, mean, var, *rest), fused), mean, var


def batch_norm_train(library: Library, call: BatchNormTrain) -> Four:
    """By one call of the extension."""
    x, weight, bias, residual, *running, batches, momentum, eps, activation, slope, keep = call
    y, mask, mean, var = call.results()
    x, residual = _operands(library, layout.memory_format(x), x, residual)
    *both, parts = room(x, _runs(library, x), None if not keep else (mean, var))
    kept = mask if keep and activation != "none" else None
    counted(batches, momentum)
    how = eps, activation, slope, *running, batches, momentum, parts
    library.call("batch_norm_train", x, *both, weight, bias, residual, y, kept, *how, on=x)
    return y, mask, mean, var


def batch_norm_grad_sums(library: Library, call: BatchNormGradSums) -> Pair:
    how: list[Any]
    grad_y, x, mean, var, mask, *how = call
    sum_g, sum_gx = call.results()
    pixels = mask_rows_are_pixels(x)
    grad_y, x = _operands(library, layout.memory_format(x), grad_y, x)
    operands = grad_y, x, mean, var, mask, sum_g, sum_gx
    library.call("batch_norm_grad_sums", *operands, *how, pixels, _parts(library, x, mean), on=x)
    return sum_g, sum_gx


def _grad_input(library: Library, call: BatchNormGradInput, training: bool) -> Pair:
    grad_y, x, *vectors, count, eps, activation, slope, wants_residual = call
    grad_x, grad_residual = call.results()
    grad_y, x = _operands(library, layout.memory_format(x), grad_y, x)
    written = grad_x, grad_residual if wants_residual else None
    how = count, eps, activation, slope, training
    library.call("batch_norm_grad_input", grad_y, x, *vectors, *written, *how, on=x)
    return grad_x, grad_residual


def batch_norm_grad_input(library: Library, call: BatchNormGradInput) -> Pair:
    return _grad_input(library, call, False)


def batch_norm_backward(library: Library, call: BatchNormBackward) -> Four:
    how: list[Any]
    grad_y, x, mean, var, weight, mask, *how, wants_residual = call
    fused = library.name == "cpu" and x.numel() > 0
    if fused:
        both = sums(x)
    else:
        both = batch_norm_grad_sums(library, BatchNormGradSums(grad_y, x, mean, var, mask, *how))
    count = max(x.numel() // max(x.shape[1], 1), 1)
    operands = grad_y, x, mean, var, weight, mask
    given: tuple[Any, ...] = *operands, *both, count, *how, wants_residual
    return *_grad_input(library, BatchNormGradInput(*given), fused), *both
