"""Recurrent layers by the extension; definition and arguments in ``csrc/rnn.h``."""

import torch

from pydl import rnn_results
from pydl.native import Library

Tensors = tuple[torch.Tensor, ...]


def _operands(library: Library, *operands: object) -> list:
    """Contiguous; what is no tensor, as it is."""
    return [x.contiguous() if isinstance(x, torch.Tensor) else x for x in operands]


def _written(results: Tensors) -> list[torch.Tensor | None]:
    """What the extension writes: nothing where a result has no elements."""
    return [result if result.ndim == 2 else None for result in results]


def rnn_forward(
    library: Library,
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
) -> Tensors:
    given = norm is not None, weight_hr is not None
    results = rnn_results.forward(gates, h0, c0, cell, keep, *given)
    operands = _operands(
        library,
        *(gates, weight_hh, bias_hh, h0, c0, weight_hr, peephole, norm, norm_c, bias_c),
        *(drop, zone_h, zone_c, batch_sizes, cell, reverse, zoneout_h, zoneout_c, eps),
    )
    work = None
    if library.name == "cuda":
        work = rnn_results.room(h0, weight_hh, gates.shape[0], batch_sizes, cell, 2)
    library.call("rnn_forward", *operands, *_written(results), work, on=gates)
    return results


def rnn_backward(
    library: Library,
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
) -> Tensors:
    given = peephole is not None, norm is not None, weight_hr is not None
    results = rnn_results.backward(y, weight_hh, h0, c0, cell, *given)
    operands = _operands(
        library,
        *(grad_y, grad_h_n, grad_c_n, y, c, activated, normalised, rstd, weight_hh, h0, c0),
        *(weight_hr, peephole, norm, norm_c, bias_c, drop, zone_h, zone_c, batch_sizes),
        *(cell, reverse, zoneout_h, zoneout_c, eps),
    )
    work = None
    if library.name == "cuda":
        numbers = 4 + rnn_results.added_up(cell, peephole is not None, norm is not None)
        work = rnn_results.room(h0, weight_hh, y.shape[0], batch_sizes, cell, numbers)
    library.call("rnn_backward", *operands, *_written(results), work, on=y)
    return results


def rnn_cell_forward(
    library: Library,
    gates: torch.Tensor,
    products: torch.Tensor,
    h: torch.Tensor | None,
    c: torch.Tensor | None,
    peephole: torch.Tensor | None,
    cell: str,
    keep: bool,
) -> Tensors:
    results = rnn_results.cell_forward(gates, cell, keep)
    operands = _operands(library, gates, products, h, c, peephole, cell)
    library.call("rnn_cell_forward", *operands, *_written(results), on=gates)
    return results


def rnn_cell_backward(
    library: Library,
    grad_h: torch.Tensor | None,
    grad_c: torch.Tensor | None,
    activated: torch.Tensor,
    h: torch.Tensor | None,
    c: torch.Tensor | None,
    c_next: torch.Tensor | None,
    peephole: torch.Tensor | None,
    cell: str,
) -> Tensors:
    results = rnn_results.cell_backward(activated, cell, peephole is not None)
    operands = _operands(library, grad_h, grad_c, activated, h, c, c_next, peephole, cell)
    library.call("rnn_cell_backward", *operands, *_written(results), on=activated)
    return results
