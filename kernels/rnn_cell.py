"""A step of a recurrent cell after its products (definition: csrc/rnn.h); its gradient is
rnn_cell_backward.py's.

One kernel per pass serves a step whose products are made outside (rnn_cell_forward) and every step
of a layer (rnn_step.py), which has further operands. A program covers ROWS sequences by COLUMNS
hidden units with all of their gates; with layer norm COLUMNS holds all units, so that a row's mean
and variance need no pass of their own.

Bytes: each operand read and each result written once. States that run through the steps (h_next,
c_next) are updated where they lie, each element by the one program that covers it.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from pydl.contract.rnn import RnnCellForward

from . import runtime
from .rnn_gates import (
    activate,
    load_wide,
    lstm,
    mixed,
    normalised_1,
    normalised_2,
    normalised_4,
    per_unit,
    plus_bias,
    rows_and_units,
    sigmoid,
    store,
    tanh,
)

# What changes from step to step makes no kernel of its own.
STEP = ("first", "before", "have", "rows")
# Of a cell alone.
NO_OPTIONS = {
    "zoneout_h": 0.0,
    "zoneout_c": 0.0,
    "eps": 0.0,
    "MIXES_H": False,
    "MIXES_C": False,
}
# Elements of a program's tile, of each of which it holds all gates; the most columns of it where
# none need to be in one program.
TILE = 512
MOST_COLUMNS = 128


@triton.jit(do_not_specialize=STEP)
def rnn_cell_forward_kernel(
    gates_ptr,  # (S, G H)
    products_ptr,  # (B, G H): p where there is a bias or a norm, else q
    bias_ptr,  # (G H) or None
    norm_ptr,  # (G H) or None
    h_ptr,  # (B, P); None where neither the cell nor zoneout reads it
    c_ptr,  # (B, H); lstm
    peephole_ptr,  # (3, H) or None
    norm_c_ptr,  # (H) or None
    bias_c_ptr,  # (H), with norm_c
    zone_h_ptr,  # (S, P) or None
    zone_c_ptr,  # (S, H) or None
    h_next_ptr,  # (B, P), written; may be h
    c_next_ptr,  # (B, H), written; may be c
    y_ptr,  # (S, P), written, or None
    c_kept_ptr,  # (S, H), written, or None
    activated_ptr,  # (S, K H), written, or None
    normalised_ptr,  # (S, G H), written, or None
    rstd_ptr,  # (S, R), written, or None
    unprojected_ptr,  # (S, H), written, or None
    u_ptr,  # (B, H), written instead of h_next and y, or None
    first,  # the step's first token
    rows,  # how many it has
    hidden,
    zoneout_h: tl.float64,
    zoneout_c: tl.float64,
    eps: tl.float64,
    CELL: tl.constexpr,
    MIXES_H: tl.constexpr,
    MIXES_C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    b, unit, mask = rows_and_units(rows, hidden, ROWS, COLUMNS, WIDE)
    token = first + b
    at = token * hidden + unit
    state_at = b * hidden + unit
    h = load_wide(h_ptr, state_at, mask) if h_ptr is not None else None

    if CELL == "lstm":
        x = token * 4 * hidden + unit
        p = b * 4 * hidden + unit
        p_i, p_f = load_wide(products_ptr, p, mask), load_wide(products_ptr, p + hidden, mask)
        p_g = load_wide(products_ptr, p + 2 * hidden, mask)
        p_o = load_wide(products_ptr, p + 3 * hidden, mask)
        if norm_ptr is not None:
            p_i, p_f, p_g, p_o, rstd = normalised_4(p_i, p_f, p_g, p_o, hidden, mask, eps)
            store(normalised_ptr, x, p_i, mask)
            store(normalised_ptr, x + hidden, p_f, mask)
            store(normalised_ptr, x + 2 * hidden, p_g, mask)
            store(normalised_ptr, x + 3 * hidden, p_o, mask)
            store(rstd_ptr, token, rstd[:, None], b < rows)
        p_i = plus_bias(p_i, bias_ptr, norm_ptr, 0, unit, hidden)
        p_f = plus_bias(p_f, bias_ptr, norm_ptr, 1, unit, hidden)
        p_g = plus_bias(p_g, bias_ptr, norm_ptr, 2, unit, hidden)
        p_o = plus_bias(p_o, bias_ptr, norm_ptr, 3, unit, hidden)
        c = load_wide(c_ptr, state_at, mask)
        peep_i, peep_f, peep_o = None, None, None
        if peephole_ptr is not None:
            peep_i = per_unit(peephole_ptr, 0, unit, hidden)
            peep_f = per_unit(peephole_ptr, 1, unit, hidden)
            peep_o = per_unit(peephole_ptr, 2, unit, hidden)
        i, f, g, o, c_new = lstm(
            load_wide(gates_ptr, x, mask) + p_i,
            load_wide(gates_ptr, x + hidden, mask) + p_f,
            load_wide(gates_ptr, x + 2 * hidden, mask) + p_g,
            load_wide(gates_ptr, x + 3 * hidden, mask) + p_o,
            c,
            peep_i,
            peep_f,
            peep_o,
        )
        store(activated_ptr, x, i, mask)
        store(activated_ptr, x + hidden, f, mask)
        store(activated_ptr, x + 2 * hidden, g, mask)
        store(activated_ptr, x + 3 * hidden, o, mask)
        shown = c_new
        if norm_c_ptr is not None:
            shown, _ = normalised_1(c_new, hidden, mask, eps)
            shown = plus_bias(shown, bias_c_ptr, norm_c_ptr, 0, unit, hidden)
        h_new = o * tanh(shown)
        c_new = mixed(c_new, c, zone_c_ptr, at, mask, zoneout_c, MIXES_C)
        tl.debug_barrier()  # c may lie there: where threads repeat each other, all have read it
        store(c_next_ptr, state_at, c_new, mask)
        store(c_kept_ptr, at, c_new, mask)
    elif CELL == "gru" or CELL == "gru_reset_before":
        KEPT: tl.constexpr = 4 if CELL == "gru" else 3
        x = token * 3 * hidden + unit
        p = b * 3 * hidden + unit
        p_r, p_z = load_wide(products_ptr, p, mask), load_wide(products_ptr, p + hidden, mask)
        p_n = load_wide(products_ptr, p + 2 * hidden, mask)
        if norm_ptr is not None:
            p_r, p_z, rstd = normalised_2(p_r, p_z, hidden, mask, eps)
            p_n, rstd_n = normalised_1(p_n, hidden, mask, eps)
            store(normalised_ptr, x, p_r, mask)
            store(normalised_ptr, x + hidden, p_z, mask)
            store(normalised_ptr, x + 2 * hidden, p_n, mask)
            store(rstd_ptr, token * 2, rstd[:, None], b < rows)
            store(rstd_ptr, token * 2 + 1, rstd_n[:, None], b < rows)
        q_r = plus_bias(p_r, bias_ptr, norm_ptr, 0, unit, hidden)
        q_z = plus_bias(p_z, bias_ptr, norm_ptr, 1, unit, hidden)
        q_n = plus_bias(p_n, bias_ptr, norm_ptr, 2, unit, hidden)
        r = sigmoid(load_wide(gates_ptr, x, mask) + q_r)
        z = sigmoid(load_wide(gates_ptr, x + hidden, mask) + q_z)
        x_n = load_wide(gates_ptr, x + 2 * hidden, mask)
        kept = token * KEPT * hidden + unit
        if CELL == "gru":
            n = tanh(x_n + r * q_n)
            store(activated_ptr, kept + 3 * hidden, q_n, mask)
        else:
            n = tanh(x_n + q_n)
        store(activated_ptr, kept, r, mask)
        store(activated_ptr, kept + hidden, z, mask)
        store(activated_ptr, kept + 2 * hidden, n, mask)
        h_new = (1 - z) * n + z * h
    else:
        p = load_wide(products_ptr, state_at, mask)
        if norm_ptr is not None:
            p, rstd = normalised_1(p, hidden, mask, eps)
            store(normalised_ptr, at, p, mask)
            store(rstd_ptr, token, rstd[:, None], b < rows)
        q = plus_bias(p, bias_ptr, norm_ptr, 0, unit, hidden)
        h_new = activate(load_wide(gates_ptr, at, mask) + q, CELL)
        store(activated_ptr, at, h_new, mask)

    if u_ptr is not None:
        store(u_ptr, state_at, h_new, mask)
        store(unprojected_ptr, at, h_new, mask)
    else:
        h_new = mixed(h_new, h, zone_h_ptr, at, mask, zoneout_h, MIXES_H)
        store(h_next_ptr, state_at, h_new, mask)
        store(y_ptr, at, h_new, mask)


def tile_of(sequences: int, hidden: int, whole_rows: bool) -> dict[str, int]:
    """The tile of the kernels that go through a step's states, and its warps; whole rows, which are
    normalised, keep more of each state in registers."""
    columns = runtime.power_of_two(hidden)
    columns = columns if whole_rows else min(columns, MOST_COLUMNS)
    rows = max(1, min(runtime.power_of_two(sequences), TILE // columns))
    return {
        "ROWS": rows,
        "COLUMNS": columns,
        "num_warps": max(4, min(16, rows * columns // (64 if whole_rows else 128))),
    }


def launch(
    kernel: Any,
    tile: dict[str, int],
    tensors: dict[str, torch.Tensor | None],
    rows: int,
    hidden: int,
    **named: Any,
) -> None:
    """Starts a kernel that goes through so many rows; a pointer of it is a tensor's name and _ptr,
    None where ``tensors`` has no such name."""
    names = [name for name in kernel.arg_names if name.endswith("_ptr")]
    pointers = {name: tensors.get(name.removesuffix("_ptr")) for name in names}
    given = [tensor for tensor in pointers.values() if tensor is not None]
    runtime.launch(
        kernel,
        triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(hidden, tile["COLUMNS"]),
        given[0].device,
        **pointers,
        rows=rows,
        hidden=hidden,
        **tile,
        **named,
        WIDE=runtime.wide(*given),
    )


def rnn_cell_forward(call: RnnCellForward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """h and c after the step, and, where ``keep``, the activated gates."""
    gates, products, h, c, peephole, cell, keep = call
    h_next, c_next, activated = call.results()
    if h_next.numel() > 0:
        tensors = {
            "gates": gates,
            "products": products,
            "h": h if cell == "gru" else None,
            "c": c,
            "peephole": peephole,
        }
        launch(
            rnn_cell_forward_kernel,
            tile_of(*h_next.shape, whole_rows=False),
            {name: t if t is None else t.contiguous() for name, t in tensors.items()}
            | {
                "h_next": h_next,
                "c_next": c_next if cell == "lstm" else None,
                "activated": activated if keep else None,
            },
            *h_next.shape,
            first=0,
            CELL=cell,
            **NO_OPTIONS,
        )
    return h_next, c_next, activated
