"""Recurrent layers in one direction, over packed sequences, and their cells (definition:
csrc/rnn.h).

The inputs' products come from outside, and so do the gradients of the weights: all of them one
product over all tokens. What is here is what goes from step to step. Where the whole of weight_hh
is in one program's reach, one launch goes through all steps (rnn_sequence.py); else, and where an
option asks for more than that has, each step is a few launches (rnn_step.py). A step alone, after
its products, is rnn_cell.py's.
"""

import torch

from pydl.contract.rnn import RnnBackward, RnnForward

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


def _dense(call: RnnForward | RnnBackward) -> Tensors:
    """The call's tensors by name, contiguous."""
    named = call._asdict().items()
    return {
        name: t if t is None else t.contiguous()
        for name, t in named
        if t is None or isinstance(t, torch.Tensor)
    }


def _present(names: tuple[str, ...], results: tuple[torch.Tensor, ...]) -> Tensors:
    """The results by name, None for one without elements."""
    named = zip(names, results, strict=True)
    return {name: t if t.numel() > 0 else None for name, t in named}


def rnn_forward(call: RnnForward) -> tuple[torch.Tensor, ...]:
    """y, h_n, c_n and, where ``keep``, what backward needs: c, activated, normalised, rstd,
    unprojected."""
    gates, h0 = call.gates, call.h0
    results = call.results()
    if results[1].numel() == 0:
        return results
    tensors = _dense(call)
    tensors["bias"] = tensors["bias_hh"]
    names = "y", "h_n", "c_n", "c_kept", "activated", "normalised", "rstd", "unprojected"
    tensors |= _present(names, results)
    how = How(call.cell, call.reverse, call.zoneout_h, call.zoneout_c, call.eps)
    steps = steps_of(_sizes(call.batch_sizes, gates.shape[0], h0.shape[0]), call.reverse)
    path = rnn_sequence if rnn_sequence.in_reach(tensors) else rnn_step
    path.forward(tensors, steps, how)
    return results


def rnn_backward(call: RnnBackward) -> tuple[torch.Tensor, ...]:
    """grad_gates, grad_products, grad_projected, grad_h0, grad_c0, grad_peephole, grad_norm,
    grad_norm_c."""
    y, h0 = call.y, call.h0
    results = call.results()
    sums = {"peephole_sums": results[5], "norm_sums": results[6], "norm_c_sums": results[7]}
    if results[3].numel() == 0:
        for result in sums.values():
            result.zero_()
        return results
    tensors = _dense(call)
    names = "grad_gates", "grad_products", "grad_projected", "grad_h0", "grad_c0"
    tensors |= _present(names, results[:5])
    sequences = h0.shape[0]
    parts = {
        name: zeros_a_sequence(result, sequences) if result.numel() > 0 else None
        for name, result in sums.items()
    }
    how = How(call.cell, call.reverse, call.zoneout_h, call.zoneout_c, call.eps)
    steps = steps_of(_sizes(call.batch_sizes, y.shape[0], sequences), call.reverse)
    path = rnn_sequence if rnn_sequence.in_reach(tensors) else rnn_step
    path.backward(tensors | parts, steps, how)
    for name, part in parts.items():
        if part is not None:
            sum_parts(part, sums[name])
    return results
