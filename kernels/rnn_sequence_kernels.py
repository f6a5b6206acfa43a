"""The kernels of rnn_sequence.py, which says what they are: forward, backward."""

import triton
import triton.language as tl

from .elements import as_offset, filled, inline, narrow, operand, widen
from .rnn_gates import (
    activate,
    activation_gradient,
    load_before,
    load_wide,
    lstm,
    lstm_gradient,
    mixed,
    part_of_old,
    per_unit,
    plus_bias,
    sigmoid,
    store,
    tanh,
)


@inline
def weight_of(
    pointer,
    gate,
    hidden,
    BLOCK_H: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
):
    """The weight of a gate [BLOCK_H, BLOCK_H], by (unit of the gate, unit of h) or TRANSPOSED."""
    row, column = tl.arange(0, BLOCK_H)[:, None], tl.arange(0, BLOCK_H)[None, :]
    mask = (row < hidden) & (column < hidden)
    at = column * hidden + row if TRANSPOSED else row * hidden + column
    weight = tl.load(pointer + gate * hidden * hidden + at, mask=mask, other=0.0)
    return operand(weight, INPUT_PRECISION)


@inline
def times(state, weight, low_ptr, INPUT_PRECISION: tl.constexpr):
    """The product of a widened state, rounded to the operands' dtype, and a weight."""
    zeros = filled(state.shape, 0.0, low_ptr)
    return tl.dot(
        operand(narrow(state, low_ptr), INPUT_PRECISION),
        weight,
        zeros,
        input_precision=INPUT_PRECISION,
        out_dtype=zeros.dtype,
    )


@inline
def tokens_of(firsts_ptr, t, steps, rows, WIDE: tl.constexpr):
    """The first token of step t and how many it has: none before the first step and after the
    last."""
    if firsts_ptr is not None:
        first = tl.load(firsts_ptr + t + 1)
        count = tl.load(firsts_ptr + t + 2) - first
        if not WIDE:
            first, count = first.to(tl.int32), count.to(tl.int32)
    else:
        first = as_offset(t, WIDE) * rows
        count = tl.where((t >= 0) & (t < steps), rows, 0)
    return first, count


@triton.jit
def rnn_sequence_forward_kernel(
    gates_ptr,  # (S, G H)
    weight_hh_ptr,  # (G H, H)
    bias_ptr,  # (G H) or None
    h0_ptr,  # (B, H)
    c0_ptr,  # (B, H); lstm
    peephole_ptr,  # (3, H) or None
    drop_ptr,  # (B, H) or None
    zone_h_ptr,  # (S, H) or None
    zone_c_ptr,  # (S, H) or None
    firsts_ptr,  # (T + 3): 0, the first token of each step, S, S; None: all have B tokens
    y_ptr,  # (S, H), written
    h_n_ptr,  # (B, H), written
    c_n_ptr,  # (B, H), written; lstm
    c_kept_ptr,  # (S, H), written, or None
    activated_ptr,  # (S, K H), written, or None
    steps,
    rows,  # B
    hidden,
    zoneout_h: tl.float64,
    zoneout_c: tl.float64,
    CELL: tl.constexpr,
    REVERSE: tl.constexpr,
    MIXES_H: tl.constexpr,
    MIXES_C: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    b = program * ROWS + tl.arange(0, ROWS)[:, None]
    unit = tl.arange(0, COLUMNS)[None, :]
    own = (b < rows) & (unit < hidden)
    state_at = b * hidden + unit
    GRU: tl.constexpr = CELL == "gru" or CELL == "gru_reset_before"
    w_0 = weight_of(weight_hh_ptr, 0, hidden, COLUMNS, True, INPUT_PRECISION)
    if CELL == "lstm" or GRU:
        w_1 = weight_of(weight_hh_ptr, 1, hidden, COLUMNS, True, INPUT_PRECISION)
        w_2 = weight_of(weight_hh_ptr, 2, hidden, COLUMNS, True, INPUT_PRECISION)
    h = load_wide(h0_ptr, state_at, own)
    if CELL == "lstm":
        w_3 = weight_of(weight_hh_ptr, 3, hidden, COLUMNS, True, INPUT_PRECISION)
        c = load_wide(c0_ptr, state_at, own)
        peep_i, peep_f, peep_o = None, None, None
        if peephole_ptr is not None:
            peep_i = per_unit(peephole_ptr, 0, unit, hidden)
            peep_f = per_unit(peephole_ptr, 1, unit, hidden)
            peep_o = per_unit(peephole_ptr, 2, unit, hidden)
    if drop_ptr is not None:
        drop = load_wide(drop_ptr, state_at, own)

    for step in range(steps):
        t = tl.cast(steps - 1 - step if REVERSE else step, tl.int32)
        first, count = tokens_of(firsts_ptr, t, steps, rows, WIDE)
        token = first + b
        mask = own & (b < count)
        at = token * hidden + unit
        state = h * drop if drop_ptr is not None else h
        p_0 = times(state, w_0, y_ptr, INPUT_PRECISION)
        if CELL == "lstm":
            x = token * 4 * hidden + unit
            p_1 = times(state, w_1, y_ptr, INPUT_PRECISION)
            p_2 = times(state, w_2, y_ptr, INPUT_PRECISION)
            p_3 = times(state, w_3, y_ptr, INPUT_PRECISION)
            p_0 = plus_bias(p_0, bias_ptr, None, 0, unit, hidden)
            p_1 = plus_bias(p_1, bias_ptr, None, 1, unit, hidden)
            p_2 = plus_bias(p_2, bias_ptr, None, 2, unit, hidden)
            p_3 = plus_bias(p_3, bias_ptr, None, 3, unit, hidden)
            i, f, g, o, c_new = lstm(
                load_wide(gates_ptr, x, mask) + p_0,
                load_wide(gates_ptr, x + hidden, mask) + p_1,
                load_wide(gates_ptr, x + 2 * hidden, mask) + p_2,
                load_wide(gates_ptr, x + 3 * hidden, mask) + p_3,
                c,
                peep_i,
                peep_f,
                peep_o,
            )
            store(activated_ptr, x, i, mask)
            store(activated_ptr, x + hidden, f, mask)
            store(activated_ptr, x + 2 * hidden, g, mask)
            store(activated_ptr, x + 3 * hidden, o, mask)
            h_new = o * tanh(c_new)
            c_new = mixed(c_new, c, zone_c_ptr, at, mask, zoneout_c, MIXES_C)
            store(c_kept_ptr, at, c_new, mask)
            c = tl.where(b < count, c_new, c)
        elif GRU:
            KEPT: tl.constexpr = 4 if CELL == "gru" else 3
            x = token * 3 * hidden + unit
            kept = token * KEPT * hidden + unit
            p_1 = times(state, w_1, y_ptr, INPUT_PRECISION)
            q_0 = plus_bias(p_0, bias_ptr, None, 0, unit, hidden)
            q_1 = plus_bias(p_1, bias_ptr, None, 1, unit, hidden)
            r = sigmoid(load_wide(gates_ptr, x, mask) + q_0)
            z = sigmoid(load_wide(gates_ptr, x + hidden, mask) + q_1)
            if CELL == "gru":
                p_2 = times(state, w_2, y_ptr, INPUT_PRECISION)
            else:
                p_2 = times(r * state, w_2, y_ptr, INPUT_PRECISION)
            q_2 = plus_bias(p_2, bias_ptr, None, 2, unit, hidden)
            x_n = load_wide(gates_ptr, x + 2 * hidden, mask)
            if CELL == "gru":
                n = tanh(x_n + r * q_2)
                store(activated_ptr, kept + 3 * hidden, q_2, mask)
            else:
                n = tanh(x_n + q_2)
            store(activated_ptr, kept, r, mask)
            store(activated_ptr, kept + hidden, z, mask)
            store(activated_ptr, kept + 2 * hidden, n, mask)
            h_new = (1 - z) * n + z * h
        else:
            q = plus_bias(p_0, bias_ptr, None, 0, unit, hidden)
            h_new = activate(load_wide(gates_ptr, at, mask) + q, CELL)
            store(activated_ptr, at, h_new, mask)
        h_new = mixed(h_new, h, zone_h_ptr, at, mask, zoneout_h, MIXES_H)
        store(y_ptr, at, h_new, mask)
        h = tl.where(b < count, widen(narrow(h_new, y_ptr)), h)  # the next step's is as stored

    store(h_n_ptr, state_at, h, own)
    if CELL == "lstm":
        store(c_n_ptr, state_at, c, own)


@triton.jit
def rnn_sequence_backward_kernel(
    grad_y_ptr,  # (S, H) or None
    grad_h_n_ptr,  # (B, H) or None
    grad_c_n_ptr,  # (B, H) or None
    y_ptr,  # (S, H)
    c_ptr,  # (S, H); lstm
    activated_ptr,  # (S, K H)
    weight_hh_ptr,  # (G H, H)
    h0_ptr,  # (B, H)
    c0_ptr,  # (B, H); lstm
    peephole_ptr,  # (3, H) or None
    drop_ptr,  # (B, H) or None
    zone_h_ptr,  # (S, H) or None
    zone_c_ptr,  # (S, H) or None
    firsts_ptr,  # (T + 3) or None: as forward
    grad_gates_ptr,  # (S, G H), written
    grad_products_ptr,  # (S, H), written; gru
    grad_h0_ptr,  # (B, H), written
    grad_c0_ptr,  # (B, H), written; lstm
    peephole_sums_ptr,  # (B, 3, H), written, with peephole
    steps,
    rows,  # B
    hidden,
    zoneout_h: tl.float64,
    zoneout_c: tl.float64,
    CELL: tl.constexpr,
    REVERSE: tl.constexpr,
    MIXES_H: tl.constexpr,
    MIXES_C: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    b = program * ROWS + tl.arange(0, ROWS)[:, None]
    unit = tl.arange(0, COLUMNS)[None, :]
    own = (b < rows) & (unit < hidden)
    state_at = b * hidden + unit
    GRU: tl.constexpr = CELL == "gru" or CELL == "gru_reset_before"
    w_0 = weight_of(weight_hh_ptr, 0, hidden, COLUMNS, False, INPUT_PRECISION)
    if CELL == "lstm" or GRU:
        w_1 = weight_of(weight_hh_ptr, 1, hidden, COLUMNS, False, INPUT_PRECISION)
        w_2 = weight_of(weight_hh_ptr, 2, hidden, COLUMNS, False, INPUT_PRECISION)
    dh = filled([ROWS, COLUMNS], 0.0, y_ptr)
    if grad_h_n_ptr is not None:
        dh += load_wide(grad_h_n_ptr, state_at, own)
    if CELL == "lstm":
        w_3 = weight_of(weight_hh_ptr, 3, hidden, COLUMNS, False, INPUT_PRECISION)
        dc = filled([ROWS, COLUMNS], 0.0, y_ptr)
        if grad_c_n_ptr is not None:
            dc += load_wide(grad_c_n_ptr, state_at, own)
        peep_i, peep_f, peep_o = None, None, None
        if peephole_ptr is not None:
            peep_i = per_unit(peephole_ptr, 0, unit, hidden)
            peep_f = per_unit(peephole_ptr, 1, unit, hidden)
            peep_o = per_unit(peephole_ptr, 2, unit, hidden)
            sum_i = filled([ROWS, COLUMNS], 0.0, y_ptr)
            sum_f = filled([ROWS, COLUMNS], 0.0, y_ptr)
            sum_o = filled([ROWS, COLUMNS], 0.0, y_ptr)
    if drop_ptr is not None:
        drop = load_wide(drop_ptr, state_at, own)

    for step in range(steps):
        t = tl.cast(step if REVERSE else steps - 1 - step, tl.int32)
        first, count = tokens_of(firsts_ptr, t, steps, rows, WIDE)
        before, have = tokens_of(firsts_ptr, t + 1 if REVERSE else t - 1, steps, rows, WIDE)
        token = first + b
        mask = own & (b < count)
        at = token * hidden + unit
        before_at = (before + b) * hidden + unit
        dh_new = dh
        if grad_y_ptr is not None:
            dh_new += load_wide(grad_y_ptr, at, mask)
        dh_old = filled([ROWS, COLUMNS], 0.0, y_ptr)
        if zone_h_ptr is not None or MIXES_H:
            old = part_of_old(zone_h_ptr, at, mask, dh, zoneout_h)
            dh_old = old * dh_new
            dh_new = (1 - old) * dh_new

        if CELL == "lstm":
            x = token * 4 * hidden + unit
            i = load_wide(activated_ptr, x, mask)
            f = load_wide(activated_ptr, x + hidden, mask)
            g = load_wide(activated_ptr, x + 2 * hidden, mask)
            o = load_wide(activated_ptr, x + 3 * hidden, mask)
            c = load_before(c_ptr, c0_ptr, b, before_at, state_at, have, mask)
            dc_new = dc
            dc_old = filled([ROWS, COLUMNS], 0.0, y_ptr)
            if zone_c_ptr is not None or MIXES_C:
                old = part_of_old(zone_c_ptr, at, mask, dc, zoneout_c)
                dc_old = old * dc
                dc_new = (1 - old) * dc
                c_new = f * c + i * g
            else:
                c_new = load_wide(c_ptr, at, mask)
            shown = tanh(c_new)
            do = dh_new * shown * o * (1 - o)
            dc_new += dh_new * o * (1 - shown * shown)
            if peephole_ptr is not None:
                dc_new += do * peep_o
            di, df, dg, dc_new = lstm_gradient(dc_new, i, f, g, c, peep_i, peep_f)
            if peephole_ptr is not None:
                sum_i += di * c
                sum_f += df * c
                sum_o += do * c_new
            store(grad_gates_ptr, x, di, mask)
            store(grad_gates_ptr, x + hidden, df, mask)
            store(grad_gates_ptr, x + 2 * hidden, dg, mask)
            store(grad_gates_ptr, x + 3 * hidden, do, mask)
            d_state = times(di, w_0, y_ptr, INPUT_PRECISION)
            d_state += times(df, w_1, y_ptr, INPUT_PRECISION)
            d_state += times(dg, w_2, y_ptr, INPUT_PRECISION)
            d_state += times(do, w_3, y_ptr, INPUT_PRECISION)
            dc = tl.where(b < count, dc_old + dc_new, dc)
        elif GRU:
            KEPT: tl.constexpr = 4 if CELL == "gru" else 3
            x = token * 3 * hidden + unit
            kept = token * KEPT * hidden + unit
            r = load_wide(activated_ptr, kept, mask)
            z = load_wide(activated_ptr, kept + hidden, mask)
            n = load_wide(activated_ptr, kept + 2 * hidden, mask)
            h = load_before(y_ptr, h0_ptr, b, before_at, state_at, have, mask)
            dn = dh_new * (1 - z) * (1 - n * n)
            dz = dh_new * (h - n) * z * (1 - z)
            dh_old += dh_new * z
            if CELL == "gru":
                dr = dn * load_wide(activated_ptr, kept + 3 * hidden, mask)
                store(grad_products_ptr, at, dn * r, mask)
                d_state = times(dn * r, w_2, y_ptr, INPUT_PRECISION)
            else:
                d_state = times(dn, w_2, y_ptr, INPUT_PRECISION)
                dr = d_state * h
                if drop_ptr is not None:
                    dr = dr * drop
                d_state = d_state * r
            dr = dr * r * (1 - r)
            store(grad_gates_ptr, x, dr, mask)
            store(grad_gates_ptr, x + hidden, dz, mask)
            store(grad_gates_ptr, x + 2 * hidden, dn, mask)
            d_state += times(dr, w_0, y_ptr, INPUT_PRECISION)
            d_state += times(dz, w_1, y_ptr, INPUT_PRECISION)
        else:
            dq = activation_gradient(dh_new, load_wide(activated_ptr, at, mask), CELL)
            store(grad_gates_ptr, at, dq, mask)
            d_state = times(dq, w_0, y_ptr, INPUT_PRECISION)
        if drop_ptr is not None:
            d_state = d_state * drop
        dh = tl.where(b < count, dh_old + d_state, dh)

    store(grad_h0_ptr, state_at, dh, own)
    if CELL == "lstm":
        store(grad_c0_ptr, state_at, dc, own)
        if peephole_ptr is not None:
            sums_at = b * 3 * hidden + unit
            store(peephole_sums_ptr, sums_at, sum_i, own)
            store(peephole_sums_ptr, sums_at + hidden, sum_f, own)
            store(peephole_sums_ptr, sums_at + 2 * hidden, sum_o, own)
