"""What the functions of the recurrent family return, unwritten (csrc/rnn.h has the shapes)."""

import torch

from pydl import layout

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_reset_before": 3}
# Numbers a hidden unit and token that are kept for the backward.
KEPT = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 4, "gru_reset_before": 3}

Tensors = tuple[torch.Tensor, ...]


def _matrix(
    like: torch.Tensor, rows: int, columns: int, dtype: torch.dtype | None = None
) -> torch.Tensor:
    return layout.empty((rows, columns), like, dtype=dtype, layout=torch.contiguous_format)


def norm_groups(cell: str) -> int:
    """How many parts of a product are normalised apart."""
    return 2 if cell.startswith("gru") else 1


def forward(
    gates: torch.Tensor,
    h0: torch.Tensor,
    c0: torch.Tensor | None,
    cell: str,
    keep: bool,
    has_norm: bool,
    projects: bool,
) -> Tensors:
    """y, h_n, c_n, c, activated, normalised, rstd, unprojected."""
    tokens, columns = gates.shape
    hidden = columns // GATES[cell]
    sums = layout.sums_dtype(gates)
    return (
        _matrix(gates, tokens, h0.shape[1]),
        _matrix(gates, *h0.shape),
        layout.nothing(gates) if c0 is None else _matrix(gates, *c0.shape),
        _matrix(gates, tokens, hidden, sums)
        if keep and c0 is not None
        else layout.nothing(gates, dtype=sums),
        _matrix(gates, tokens, KEPT[cell] * hidden) if keep else layout.nothing(gates),
        _matrix(gates, tokens, columns) if keep and has_norm else layout.nothing(gates),
        _matrix(gates, tokens, norm_groups(cell), sums)
        if keep and has_norm
        else layout.nothing(gates, dtype=sums),
        _matrix(gates, tokens, hidden) if keep and projects else layout.nothing(gates),
    )


def backward(
    y: torch.Tensor,
    weight_hh: torch.Tensor,
    h0: torch.Tensor,
    c0: torch.Tensor | None,
    cell: str,
    peephole: bool,
    has_norm: bool,
    projects: bool,
) -> Tensors:
    """grad_gates, grad_products, grad_projected, grad_h0, grad_c0, grad_peephole, grad_norm,
    grad_norm_c."""
    tokens, columns = y.shape[0], weight_hh.shape[0]
    hidden = columns // GATES[cell]
    sums = layout.sums_dtype(y)
    products = columns if has_norm else hidden if cell == "gru" else 0
    return (
        _matrix(y, tokens, columns),
        _matrix(y, tokens, products) if products else layout.nothing(y),
        _matrix(y, *y.shape) if projects else layout.nothing(y),
        _matrix(y, *h0.shape),
        layout.nothing(y) if c0 is None else _matrix(y, *c0.shape),
        _matrix(y, 3, hidden, sums) if peephole else layout.nothing(y, dtype=sums),
        _matrix(y, 2, columns, sums) if has_norm else layout.nothing(y, dtype=sums),
        _matrix(y, 2, hidden, sums)
        if has_norm and cell == "lstm"
        else layout.nothing(y, dtype=sums),
    )


def cell_forward(gates: torch.Tensor, cell: str, keep: bool) -> Tensors:
    """h and c after the step, activated."""
    rows, hidden = gates.shape[0], gates.shape[1] // GATES[cell]
    return (
        _matrix(gates, rows, hidden),
        _matrix(gates, rows, hidden) if cell == "lstm" else layout.nothing(gates),
        _matrix(gates, rows, KEPT[cell] * hidden) if keep else layout.nothing(gates),
    )


def cell_backward(activated: torch.Tensor, cell: str, peephole: bool) -> Tensors:
    """grad_gates, grad_products, grad_h_before, grad_c_before, grad_peephole."""
    rows, hidden = activated.shape[0], activated.shape[1] // KEPT[cell]
    sums = layout.sums_dtype(activated)
    return (
        _matrix(activated, rows, GATES[cell] * hidden),
        _matrix(activated, rows, 3 * hidden) if cell == "gru" else layout.nothing(activated),
        _matrix(activated, rows, hidden) if cell == "gru" else layout.nothing(activated),
        _matrix(activated, rows, hidden) if cell == "lstm" else layout.nothing(activated),
        _matrix(activated, 3, hidden, sums) if peephole else layout.nothing(activated, dtype=sums),
    )


def added_up(cell: str, peephole: bool, has_norm: bool) -> int:
    """Numbers a hidden unit and sequence that add up over the tokens."""
    return 3 * peephole + (2 * GATES[cell] + 2) * has_norm


def room(
    h0: torch.Tensor,
    weight_hh: torch.Tensor,
    tokens: int,
    batch_sizes: torch.Tensor | None,
    cell: str,
    numbers: int,
) -> torch.Tensor:
    """What CUDA's kernels compute in: (steps + sequences * (gates + numbers) * hidden,)."""
    sequences, hidden = h0.shape[0], weight_hh.shape[0] // GATES[cell]
    steps = tokens // sequences if batch_sizes is None else len(batch_sizes)
    size = steps + sequences * (GATES[cell] + numbers) * hidden
    sums = layout.sums_dtype(h0)
    return layout.empty((size,), h0, dtype=sums, layout=torch.contiguous_format)
