"""Recurrent layers by the extension; definition and arguments in ``csrc/rnn.h``."""

import torch

from pydl.contract.call import Tensors
from pydl.contract.rnn import (
    RnnBackward,
    RnnCellBackward,
    RnnCellForward,
    RnnForward,
    added_up,
    room,
)
from pydl.native import Library


def _contiguous(*operands: object) -> list:
    """What is no tensor, as it is."""
    return [x.contiguous() if isinstance(x, torch.Tensor) else x for x in operands]


def _written(results: Tensors) -> list[torch.Tensor | None]:
    """What the extension writes: nothing where a result has no elements."""
    return [result if result.ndim == 2 else None for result in results]


def rnn_forward(library: Library, call: RnnForward) -> Tensors:
    *operands, _ = call
    results, work = call.results(), None
    if library.name == "cuda":
        tokens = call.gates.shape[0]
        work = room(call.h0, call.weight_hh, tokens, call.batch_sizes, call.cell, 2)
    arguments = *_contiguous(*operands), *_written(results)
    library.call("rnn_forward", *arguments, work, on=call.gates)
    return results


def rnn_backward(library: Library, call: RnnBackward) -> Tensors:
    results, work = call.results(), None
    if library.name == "cuda":
        tokens = call.y.shape[0]
        numbers = 4 + added_up(call.cell, call.peephole is not None, call.norm is not None)
        work = room(call.h0, call.weight_hh, tokens, call.batch_sizes, call.cell, numbers)
    arguments = *_contiguous(*call), *_written(results)
    library.call("rnn_backward", *arguments, work, on=call.y)
    return results


def rnn_cell_forward(library: Library, call: RnnCellForward) -> Tensors:
    *operands, _ = call
    results = call.results()
    arguments = *_contiguous(*operands), *_written(results)
    library.call("rnn_cell_forward", *arguments, on=call.gates)
    return results


def rnn_cell_backward(library: Library, call: RnnCellBackward) -> Tensors:
    results = call.results()
    arguments = *_contiguous(*call), *_written(results)
    library.call("rnn_cell_backward", *arguments, on=call.activated)
    return results
