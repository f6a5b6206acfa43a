"""Recurrent layers in one direction, over packed sequences, and their cells (definition:
csrc/rnn.h).

The inputs' products come from outside, and so do the gradients of the weights: all of them one
product over all tokens. What is here is what goes from step to step. Where the whole of weight_hh
is in one program's reach, one launch goes through all steps (rnn_sequence.py); else, and where an
option asks for more than that has, each step is a few launches (rnn_step.py). A step alone, after
its products, is rnn_cell.py's.
"""

import torch

from pydl import rnn_results

from . import rnn_sequence, rnn_step
from .rnn_cell import rnn_cell_forward
from .rnn_cell_backward import rnn_cell_backward, zeros_a_sequence
from .rnn_step import How, Tensors, steps_of
from .split import sum_parts

__all__ = ["rnn_backward", "rnn_cell_backward", "rnn_cell_forward", "rnn_forward"]


def _sizes(batch_sizes: torch.Tensor | None, tokens: int, sequences: int) -> list[int]:
    """How many tokens each step has."""
    if batch_sizes is None:
        return [sequences] * (tokens // max(sequences, 1))
    return batch_sizes.tolist()


def _dense(**tensors: torch.Tensor | None) -> Tensors:
    return {name: None if t is None else t.contiguous() for name, t in tensors.items()}


def _present(names: tuple[str, ...], results: tuple[torch.Tensor, ...]) -> Tensors:
    """The results by name, None for one without elements."""
    named = zip(names, results, strict=True)
    return {name: t if t.numel() > 0 else None for name, t in named}


def rnn_forward(
    gates: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_hh: torch.Tensor | None,
    h0: torch.Tensor,
    c0: torch.Tensor | None,
    weight_hr: torch.Tensor | None,
    peephole: torch.Tensor | None,
    norm: torch.Tensor | None,
    norm_c: torch.Tensor | None,
    bias_c: torch.Tensor | None,
    drop: torch.Tensor | None,
    zone_h: torch.Tensor | None,
    zone_c: torch.Tensor | None,
    batch_sizes: torch.Tensor | None,
    cell: str,
    reverse: bool,
    zoneout_h: float,
    zoneout_c: float,
    eps: float,
    keep: bool,
) -> tuple[torch.Tensor, ...]:
    """y, h_n, c_n and, where ``keep``, what backward needs: c, activated, normalised, rstd,
    unprojected."""
    given = norm is not None, weight_hr is not None
    results = rnn_results.forward(gates, h0, c0, cell, keep, *given)
    if results[1].numel() == 0:
        return results
    tensors = _dense(
        gates=gates,
        weight_hh=weight_hh,
        bias=bias_hh,
        h0=h0,
        c0=c0,
        weight_hr=weight_hr,
        peephole=peephole,
        norm=norm,
        norm_c=norm_c,
        bias_c=bias_c,
        drop=drop,
        zone_h=zone_h,
        zone_c=zone_c,
    )
    names = "y", "h_n", "c_n", "c_kept", "activated", "normalised", "rstd", "unprojected"
    tensors |= _present(names, results)
    how = How(cell, reverse, zoneout_h, zoneout_c, eps)
    steps = steps_of(_sizes(batch_sizes, gates.shape[0], h0.shape[0]), reverse)
    path = rnn_sequence if rnn_sequence.in_reach(tensors) else rnn_step
    path.forward(tensors, steps, how)
    return results


def rnn_backward(
    grad_y: torch.Tensor | None,
    grad_h_n: torch.Tensor | None,
    grad_c_n: torch.Tensor | None,
    y: torch.Tensor,
    c: torch.Tensor | None,
    activated: torch.Tensor,
    normalised: torch.Tensor | None,
    rstd: torch.Tensor | None,
    weight_hh: torch.Tensor,
    h0: torch.Tensor,
    c0: torch.Tensor | None,
    weight_hr: torch.Tensor | None,
    peephole: torch.Tensor | None,
    norm: torch.Tensor | None,
    norm_c: torch.Tensor | None,
    bias_c: torch.Tensor | None,
    drop: torch.Tensor | None,
    zone_h: torch.Tensor | None,
    zone_c: torch.Tensor | None,
    batch_sizes: torch.Tensor | None,
    cell: str,
    reverse: bool,
    zoneout_h: float,
    zoneout_c: float,
    eps: float,
) -> tuple[torch.Tensor, ...]:
    """grad_gates, grad_products, grad_projected, grad_h0, grad_c0, grad_peephole, grad_norm,
    grad_norm_c."""
    given = peephole is not None, norm is not None, weight_hr is not None
    results = rnn_results.backward(y, weight_hh, h0, c0, cell, *given)
    sums = {"peephole_sums": results[5], "norm_sums": results[6], "norm_c_sums": results[7]}
    if results[3].numel() == 0:
        for result in sums.values():
            result.zero_()
        return results
    tensors = _dense(
        grad_y=grad_y,
        grad_h_n=grad_h_n,
        grad_c_n=grad_c_n,
        y=y,
        c=c,
        activated=activated,
        normalised=normalised,
        rstd=rstd,
        weight_hh=weight_hh,
        h0=h0,
        c0=c0,
        weight_hr=weight_hr,
        peephole=peephole,
        norm=norm,
        norm_c=norm_c,
        bias_c=bias_c,
        drop=drop,
        zone_h=zone_h,
        zone_c=zone_c,
    )
    names = "grad_gates", "grad_products", "grad_projected", "grad_h0", "grad_c0"
    tensors |= _present(names, results[:5])
    sequences = h0.shape[0]
    parts = {
        name: zeros_a_sequence(result, sequences) if result.numel() > 0 else None
        for name, result in sums.items()
    }
    how = How(cell, reverse, zoneout_h, zoneout_c, eps)
    steps = steps_of(_sizes(batch_sizes, y.shape[0], sequences), reverse)
    path = rnn_sequence if rnn_sequence.in_reach(tensors) else rnn_step
    path.backward(tensors | parts, steps, how)
    for name, part in parts.items():
        if part is not None:
            sum_parts(part, sums[name])
    return results
