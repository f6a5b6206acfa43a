"""The gradient of a step of a recurrent cell after its products (definition: csrc/rnn.h); forward
and tiles are rnn_cell.py's.

One kernel serves a step alone (rnn_cell_backward) and every step of a layer (rnn_step.py). Bytes:
each operand read and each result written once. What adds up over steps is updated where it lies,
each element by the one program that covers it, one number per sequence; the sums over sequences
come last (split.sum_parts), in order: nothing is atomic and results repeat bit for bit.
"""

import torch
import triton
import triton.language as tl

from pydl import layout, plan
from pydl.contract.rnn import KEPT, RnnCellBackward

from .elements import filled
from .rnn_cell import NO_OPTIONS, STEP, launch, tile_of
from .rnn_gates import (
    activation_gradient,
    add_to,
    gain_gradient,
    load_before,
    load_wide,
    lstm_gradient,
    norm_gradient,
    normalised_1,
    part_of_old,
    per_unit,
    plus_bias,
    rows_and_units,
    rstd_at,
    store,
    tanh,
)
from .split import sum_parts


@triton.jit(do_not_specialize=STEP)
def rnn_cell_backward_kernel(
    grad_h_ptr,  # (B, H) or None
    grad_y_ptr,  # (S, H) or None; added to grad_h
    grad_c_ptr,  # (B, H) or None
    activated_ptr,  # (S, K H)
    normalised_ptr,  # (S, G H), with norm
    rstd_ptr,  # (S, R), with norm
    h_ptr,  # (S, H) after each step; gru
    h0_ptr,  # (B, H), or None: all of h is in h_ptr
    c_ptr,  # (S, H) after each step; lstm
    c0_ptr,  # (B, H) or None, likewise
    c_next_ptr,  # (S, H), or None: computed anew
    peephole_ptr,  # (3, H) or None
    norm_ptr,  # (G H) or None
    norm_c_ptr,  # (H) or None
    bias_c_ptr,  # (H), with norm_c
    zone_h_ptr,  # (S, H) or None
    zone_c_ptr,  # (S, H) or None
    grad_gates_ptr,  # (S, G H), written; gru_reset_before: but r's
    grad_products_ptr,  # (S, G H), or with ONLY_N (S, H), written, or None
    grad_h_before_ptr,  # (B, H), written: what does not come through the products; or None
    grad_c_before_ptr,  # (B, H), written; may be grad_c; lstm
    peephole_sums_ptr,  # (B, 3, H), added to, or None
    norm_sums_ptr,  # (B, 2, G H), added to, with norm; gru_reset_before: n's alone
    norm_c_sums_ptr,  # (B, 2, H), added to, with norm_c
    first,  # the step's first token
    before,  # the first token of the step before
    have,  # how many tokens that has
    rows,
    hidden,
    zoneout_h: tl.float64,
    zoneout_c: tl.float64,
    eps: tl.float64,
    CELL: tl.constexpr,
    MIXES_H: tl.constexpr,
    MIXES_C: tl.constexpr,
    ONLY_N: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    b, unit, mask = rows_and_units(rows, hidden, ROWS, COLUMNS, WIDE)
    token = first + b
    at = token * hidden + unit
    state_at = b * hidden + unit
    before_at = (before + b) * hidden + unit
    dh = filled([ROWS, COLUMNS], 0.0, activated_ptr)
    if grad_h_ptr is not None:
        dh += load_wide(grad_h_ptr, state_at, mask)
    if grad_y_ptr is not None:
        dh += load_wide(grad_y_ptr, at, mask)
    dh_before = filled([ROWS, COLUMNS], 0.0, activated_ptr)
    if zone_h_ptr is not None or MIXES_H:
        old = part_of_old(zone_h_ptr, at, mask, dh, zoneout_h)
        dh_before = old * dh
        dh = (1 - old) * dh

    if CELL == "lstm":
        x = token * 4 * hidden + unit
        i = load_wide(activated_ptr, x, mask)
        f = load_wide(activated_ptr, x + hidden, mask)
        g = load_wide(activated_ptr, x + 2 * hidden, mask)
        o = load_wide(activated_ptr, x + 3 * hidden, mask)
        c = load_before(c_ptr, c0_ptr, b, before_at, state_at, have, mask)
        c_new = load_wide(c_next_ptr, at, mask) if c_next_ptr is not None else f * c + i * g
        if norm_c_ptr is not None:
            hat, rstd = normalised_1(c_new, hidden, mask, eps)
            shown = tanh(plus_bias(hat, bias_c_ptr, norm_c_ptr, 0, unit, hidden))
            d_shown = dh * o * (1 - shown * shown)
            sums_at = b * 2 * hidden + unit
            d_shown = gain_gradient(
                norm_c_ptr, norm_c_sums_ptr, sums_at, hidden, 0, unit, hidden, d_shown, hat, mask
            )
            sums, along = tl.sum(d_shown, 1), tl.sum(d_shown * hat, 1)
            d_shown = norm_gradient(d_shown, hat, sums, along, hidden, rstd)
        else:
            shown = tanh(c_new)
            d_shown = dh * o * (1 - shown * shown)
        do = dh * shown * o * (1 - o)
        dc = filled([ROWS, COLUMNS], 0.0, activated_ptr)
        if grad_c_ptr is not None:
            dc += load_wide(grad_c_ptr, state_at, mask)
        dc_before = filled([ROWS, COLUMNS], 0.0, activated_ptr)
        if zone_c_ptr is not None or MIXES_C:
            old = part_of_old(zone_c_ptr, at, mask, dc, zoneout_c)
            dc_before = old * dc
            dc = (1 - old) * dc
        dc += d_shown
        peep_i, peep_f = None, None
        if peephole_ptr is not None:
            peep_i = per_unit(peephole_ptr, 0, unit, hidden)
            peep_f = per_unit(peephole_ptr, 1, unit, hidden)
            dc += do * per_unit(peephole_ptr, 2, unit, hidden)
        di, df, dg, dc = lstm_gradient(dc, i, f, g, c, peep_i, peep_f)
        dc_before += dc
        if peephole_ptr is not None:
            sums_at = b * 3 * hidden + unit
            add_to(peephole_sums_ptr, sums_at, di * c, mask)
            add_to(peephole_sums_ptr, sums_at + hidden, df * c, mask)
            add_to(peephole_sums_ptr, sums_at + 2 * hidden, do * c_new, mask)
        store(grad_gates_ptr, x, di, mask)
        store(grad_gates_ptr, x + hidden, df, mask)
        store(grad_gates_ptr, x + 2 * hidden, dg, mask)
        store(grad_gates_ptr, x + 3 * hidden, do, mask)
        if norm_ptr is not None:
            sums_at = b * 8 * hidden + unit
            across = 4 * hidden
            hat_i = load_wide(normalised_ptr, x, mask)
            hat_f = load_wide(normalised_ptr, x + hidden, mask)
            hat_g = load_wide(normalised_ptr, x + 2 * hidden, mask)
            hat_o = load_wide(normalised_ptr, x + 3 * hidden, mask)
            di = gain_gradient(
                norm_ptr, norm_sums_ptr, sums_at, across, 0, unit, hidden, di, hat_i, mask
            )
            df = gain_gradient(
                norm_ptr, norm_sums_ptr, sums_at, across, 1, unit, hidden, df, hat_f, mask
            )
            dg = gain_gradient(
                norm_ptr, norm_sums_ptr, sums_at, across, 2, unit, hidden, dg, hat_g, mask
            )
            do = gain_gradient(
                norm_ptr, norm_sums_ptr, sums_at, across, 3, unit, hidden, do, hat_o, mask
            )
            sums = tl.sum(di + df + dg + do, 1)
            along = tl.sum(di * hat_i + df * hat_f + dg * hat_g + do * hat_o, 1)
            rstd = rstd_at(rstd_ptr, token, b < rows)
            di = norm_gradient(di, hat_i, sums, along, across, rstd)
            df = norm_gradient(df, hat_f, sums, along, across, rstd)
            dg = norm_gradient(dg, hat_g, sums, along, across, rstd)
            do = norm_gradient(do, hat_o, sums, along, across, rstd)
            store(grad_products_ptr, x, di, mask)
            store(grad_products_ptr, x + hidden, df, mask)
            store(grad_products_ptr, x + 2 * hidden, dg, mask)
            store(grad_products_ptr, x + 3 * hidden, do, mask)
    elif CELL == "gru" or CELL == "gru_reset_before":
        KEPT: tl.constexpr = 4 if CELL == "gru" else 3
        x = token * 3 * hidden + unit
        kept = token * KEPT * hidden + unit
        z = load_wide(activated_ptr, kept + hidden, mask)
        n = load_wide(activated_ptr, kept + 2 * hidden, mask)
        h = load_before(h_ptr, h0_ptr, b, before_at, state_at, have, mask)
        dn = dh * (1 - z) * (1 - n * n)
        dz = dh * (h - n) * z * (1 - z)
        dh_before += dh * z
        store(grad_gates_ptr, x + hidden, dz, mask)
        store(grad_gates_ptr, x + 2 * hidden, dn, mask)
        sums_at = b * 6 * hidden + unit
        across = 3 * hidden
        dp_n = dn
        if CELL == "gru":
            r = load_wide(activated_ptr, kept, mask)
            dp_n = dn * r
            dr = dn * load_wide(activated_ptr, kept + 3 * hidden, mask) * r * (1 - r)
            store(grad_gates_ptr, x, dr, mask)
            if norm_ptr is not None:
                hat_r = load_wide(normalised_ptr, x, mask)
                hat_z = load_wide(normalised_ptr, x + hidden, mask)
                dr = gain_gradient(
                    norm_ptr, norm_sums_ptr, sums_at, across, 0, unit, hidden, dr, hat_r, mask
                )
                dz = gain_gradient(
                    norm_ptr, norm_sums_ptr, sums_at, across, 1, unit, hidden, dz, hat_z, mask
                )
                sums, along = tl.sum(dr + dz, 1), tl.sum(dr * hat_r + dz * hat_z, 1)
                rstd = rstd_at(rstd_ptr, token * 2, b < rows)
                dr = norm_gradient(dr, hat_r, sums, along, 2 * hidden, rstd)
                dz = norm_gradient(dz, hat_z, sums, along, 2 * hidden, rstd)
            if not ONLY_N:
                store(grad_products_ptr, x, dr, mask)
                store(grad_products_ptr, x + hidden, dz, mask)
        if norm_ptr is not None:
            hat_n = load_wide(normalised_ptr, x + 2 * hidden, mask)
            dp_n = gain_gradient(
                norm_ptr, norm_sums_ptr, sums_at, across, 2, unit, hidden, dp_n, hat_n, mask
            )
            sums, along = tl.sum(dp_n, 1), tl.sum(dp_n * hat_n, 1)
            rstd = rstd_at(rstd_ptr, token * 2 + 1, b < rows)
            dp_n = norm_gradient(dp_n, hat_n, sums, along, hidden, rstd)
        store(grad_products_ptr, at if ONLY_N else x + 2 * hidden, dp_n, mask)
    else:
        dq = activation_gradient(dh, load_wide(activated_ptr, at, mask), CELL)
        store(grad_gates_ptr, at, dq, mask)
        if norm_ptr is not None:
            hat = load_wide(normalised_ptr, at, mask)
            sums_at = b * 2 * hidden + unit
            dq = gain_gradient(
                norm_ptr, norm_sums_ptr, sums_at, hidden, 0, unit, hidden, dq, hat, mask
            )
            sums, along = tl.sum(dq, 1), tl.sum(dq * hat, 1)
            dq = norm_gradient(dq, hat, sums, along, hidden, rstd_at(rstd_ptr, token, b < rows))
            store(grad_products_ptr, at, dq, mask)
    tl.debug_barrier()  # grad_h and grad_c may lie there: where threads repeat each other, all have
    # read them
    if CELL == "lstm":
        store(grad_c_before_ptr, state_at, dc_before, mask)
    store(grad_h_before_ptr, state_at, dh_before, mask)


def zeros_a_sequence(result: torch.Tensor, sequences: int) -> torch.Tensor:
    """(sequences, elements of the result) where its parts add up."""
    size = sequences, result.numel()
    zeros = layout.empty(size, result, layout=torch.contiguous_format)
    plan.step(torch.zero_, zeros)
    return zeros


def rnn_cell_backward(
    call: RnnCellBackward,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """grad_gates, grad_products, grad_h_before, grad_c_before, grad_peephole."""
    grad_h, grad_c, activated, h, c, c_next, peephole, cell = call
    results = call.results()
    grad_gates, grad_products, grad_h_before, grad_c_before, grad_peephole = results
    rows, hidden = activated.shape[0], activated.shape[1] // KEPT[cell]
    if grad_gates.numel() == 0:
        grad_peephole.zero_()
        return results
    lstm = cell == "lstm"
    tensors = {
        "grad_h": grad_h,
        "grad_c": grad_c if lstm else None,
        "activated": activated,
        "h": h if cell == "gru" else None,
        "c": c,
        "c_next": c_next if lstm else None,
        "peephole": peephole,
    }
    sums = None if peephole is None else zeros_a_sequence(grad_peephole, rows)
    launch(
        rnn_cell_backward_kernel,
        tile_of(rows, hidden, whole_rows=False),
        {name: t if t is None else t.contiguous() for name, t in tensors.items()}
        | {
            "grad_gates": grad_gates,
            "grad_products": grad_products if cell == "gru" else None,
            "grad_h_before": grad_h_before if cell == "gru" else None,
            "grad_c_before": grad_c_before if lstm else None,
            "peephole_sums": sums,
        },
        rows,
        hidden,
        first=0,
        before=0,
        have=rows,
        CELL=cell,
        **NO_OPTIONS,
        ONLY_N=False,
    )
    if sums is not None:
        sum_parts(sums, grad_peephole)
    return results
