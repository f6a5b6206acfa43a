"""A layer of a recurrent network in one direction, and one step of a cell (csrc/rnn.h has the
definitions and the sizes: S tokens, B sequences, H hidden units, P numbers in h, G gates).

``cell`` is rnn_tanh, rnn_relu, lstm, gru or gru_reset_before. A result that does not apply has no
elements. Where a comment says sums, a tensor is float32, float64 for float64.
"""

from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Tensor

# Gates, and numbers per hidden unit and token that are kept for the backward.
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3}
KEPT = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 4, "gru_reset_before": 3}

Three = tuple[Tensor, Tensor, Tensor]
Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
Eight = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def norm_groups(cell: str) -> int:
    """How many parts of a product are normalised apart."""
    return 2 if cell.startswith("gru") else 1


def added_up(cell: str, peephole: bool, has_norm: bool) -> int:
    """Numbers per hidden unit and sequence that are summed over the tokens."""
    return 3 * peephole + (2 * GATES[cell] + 2) * has_norm


def room(
    h0: Tensor, weight_hh: Tensor, tokens: int, batch_sizes: Tensor | None, cell: str, numbers: int
) -> Tensor:
    """What CUDA's kernels compute in: (steps + sequences * (gates + numbers) * hidden,)."""
    sequences, hidden = h0.shape[0], weight_hh.shape[0] // GATES[cell]
    steps = tokens // sequences if batch_sizes is None else len(batch_sizes)
    size = steps + sequences * (GATES[cell] + numbers) * hidden
    sums = layout.sums_dtype(h0)
    return layout.empty((size,), h0, dtype=sums, layout=torch.contiguous_format)


def _matrix(
    like: Tensor, rows: int, columns: int, there: bool = True, dtype: torch.dtype | None = None
) -> Tensor:
    if not there:
        return layout.nothing(like, dtype=dtype)
    return layout.empty((rows, columns), like, dtype=dtype, layout=torch.contiguous_format)


class RnnForward(NamedTuple):
    gates: Tensor  # (S, G H): the inputs' products with their bias
    weight_hh: Tensor  # (G H, P)
    bias_hh: Tensor | None  # (G H,)
    h0: Tensor  # (B, P)
    c0: Tensor | None  # (B, H), of an LSTM
    weight_hr: Tensor | None  # (P, H): the projection
    peephole: Tensor | None  # (3, H)
    norm: Tensor | None  # (2, G H): gains of both products
    norm_c: Tensor | None  # (H,)
    bias_c: Tensor | None  # (H,)
    drop: Tensor | None  # (B, P): recurrent dropout
    zone_h: Tensor | None  # (S, P) of zeros and ones
    zone_c: Tensor | None  # (S, H)
    batch_sizes: Tensor | None  # (T,) of int64, on the CPU; None: S = T B
    cell: str
    reverse: bool
    zoneout_h: float
    zoneout_c: float
    eps: float
    keep: bool  # whether a backward follows

    def results(self) -> Eight:
        """y (S, P), h_n (B, P), c_n (B, H); kept for the backward: c (S, H) in sums, activated
        (S, K H), normalised (S, G H), rstd (S, groups) in sums, unprojected (S, H)."""
        gates, h0, c0, keep = self.gates, self.h0, self.c0, self.keep
        tokens, columns = gates.shape
        hidden, sums = columns // GATES[self.cell], layout.sums_dtype(gates)
        normalises, lstm = keep and self.norm is not None, c0 is not None
        return (
            _matrix(gates, tokens, h0.shape[1]),
            _matrix(gates, *h0.shape),
            _matrix(gates, h0.shape[0], hidden, lstm),
            _matrix(gates, tokens, hidden, keep and lstm, sums),
            _matrix(gates, tokens, KEPT[self.cell] * hidden, keep),
            _matrix(gates, tokens, columns, normalises),
            _matrix(gates, tokens, norm_groups(self.cell), normalises, sums),
            _matrix(gates, tokens, hidden, keep and self.weight_hr is not None),
        )


class RnnBackward(NamedTuple):
    grad_y: Tensor | None  # (S, P)
    grad_h_n: Tensor | None  # (B, P)
    grad_c_n: Tensor | None  # (B, H)
    y: Tensor  # (S, P)
    c: Tensor | None  # what the forward kept
    activated: Tensor
    normalised: Tensor | None
    rstd: Tensor | None
    weight_hh: Tensor  # from here on as the forward's
    h0: Tensor
    c0: Tensor | None
    weight_hr: Tensor | None
    peephole: Tensor | None
    norm: Tensor | None
    norm_c: Tensor | None
    bias_c: Tensor | None
    drop: Tensor | None
    zone_h: Tensor | None
    zone_c: Tensor | None
    batch_sizes: Tensor | None
    cell: str
    reverse: bool
    zoneout_h: float
    zoneout_c: float
    eps: float

    def results(self) -> Eight:
        """grad_gates (S, G H), grad_products (S, G H or, of a GRU, H), grad_projected (S, P),
        grad_h0 (B, P), grad_c0 (B, H); in sums: grad_peephole (3, H), grad_norm (2, G H),
        grad_norm_c (2, H)."""
        y, h0, has_norm = self.y, self.h0, self.norm is not None
        tokens, columns = y.shape[0], self.weight_hh.shape[0]
        hidden, sums = columns // GATES[self.cell], layout.sums_dtype(y)
        products = columns if has_norm else hidden if self.cell == "gru" else 0
        return (
            _matrix(y, tokens, columns),
            _matrix(y, tokens, products, products > 0),
            _matrix(y, tokens, y.shape[1], self.weight_hr is not None),
            _matrix(y, *h0.shape),
            _matrix(y, h0.shape[0], hidden, self.c0 is not None),
            _matrix(y, 3, hidden, self.peephole is not None, sums),
            _matrix(y, 2, columns, has_norm, sums),
            _matrix(y, 2, hidden, has_norm and self.cell == "lstm", sums),
        )


class RnnCellForward(NamedTuple):
    gates: Tensor  # (B, G H): the input's product with its bias
    products: Tensor  # (B, G H): h's
    h: Tensor | None  # (B, H)
    c: Tensor | None  # (B, H)
    peephole: Tensor | None  # (3, H)
    cell: str
    keep: bool

    def results(self) -> Three:
        """h and c after the step (B, H), activated (B, K H)."""
        gates, cell = self.gates, self.cell
        rows, hidden = gates.shape[0], gates.shape[1] // GATES[cell]
        return (
            _matrix(gates, rows, hidden),
            _matrix(gates, rows, hidden, cell == "lstm"),
            _matrix(gates, rows, KEPT[cell] * hidden, self.keep),
        )


class RnnCellBackward(NamedTuple):
    grad_h: Tensor | None  # (B, H)
    grad_c: Tensor | None  # (B, H)
    activated: Tensor  # (B, K H)
    h: Tensor | None  # (B, H)
    c: Tensor | None  # (B, H)
    c_next: Tensor | None  # (B, H)
    peephole: Tensor | None  # (3, H)
    cell: str

    def results(self) -> Five:
        """grad_gates (B, G H), grad_products (B, 3 H), grad_h and grad_c before the step (B, H),
        grad_peephole (3, H) in sums."""
        activated, cell = self.activated, self.cell
        rows, hidden = activated.shape[0], activated.shape[1] // KEPT[cell]
        return (
            _matrix(activated, rows, GATES[cell] * hidden),
            _matrix(activated, rows, 3 * hidden, cell == "gru"),
            _matrix(activated, rows, hidden, cell == "gru"),
            _matrix(activated, rows, hidden, cell == "lstm"),
            _matrix(activated, 3, hidden, self.peephole is not None, layout.sums_dtype(activated)),
        )
