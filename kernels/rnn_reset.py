"""What a GRU that resets before its product has between its two products (definition: csrc/rnn.h):
forward the state times r, backward the gradient of r.

Programs as in rnn_cell.py, whose kernels do the rest of the step: the forward kernel computes r and
z once more from their products, instead of storing them.
"""

import triton
import triton.language as tl

from .rnn_cell import STEP
from .rnn_gates import (
    gain_gradient,
    load_before,
    load_wide,
    norm_gradient,
    normalised_2,
    plus_bias,
    rows_and_units,
    rstd_at,
    sigmoid,
    store,
)


@triton.jit(do_not_specialize=STEP)
def rnn_reset_kernel(
    gates_ptr,  # (S, 3 H)
    products_ptr,  # (B, 3 H): p of r and z
    bias_ptr,  # (3 H) or None
    norm_ptr,  # (3 H) or None
    h_ptr,  # (B, H)
    drop_ptr,  # (B, H) or None
    state_ptr,  # (B, H), written: r * h * drop
    first,
    rows,
    hidden,
    eps: tl.float64,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    b, unit, mask = rows_and_units(rows, hidden, ROWS, COLUMNS, WIDE)
    p = b * 3 * hidden + unit
    p_r = load_wide(products_ptr, p, mask)
    if norm_ptr is not None:
        p_z = load_wide(products_ptr, p + hidden, mask)
        p_r, p_z, _ = normalised_2(p_r, p_z, hidden, mask, eps)
    q_r = plus_bias(p_r, bias_ptr, norm_ptr, 0, unit, hidden)
    r = sigmoid(load_wide(gates_ptr, (first + b) * 3 * hidden + unit, mask) + q_r)
    state = r * load_wide(h_ptr, b * hidden + unit, mask)
    if drop_ptr is not None:
        state *= load_wide(drop_ptr, b * hidden + unit, mask)
    store(state_ptr, b * hidden + unit, state, mask)


@triton.jit(do_not_specialize=STEP)
def rnn_reset_backward_kernel(
    grad_state_ptr,  # (B, H): of r * h * drop
    activated_ptr,  # (S, 3 H)
    normalised_ptr,  # (S, 3 H), with norm
    rstd_ptr,  # (S, 2), with norm
    h_ptr,  # (S, H) after each step
    h0_ptr,  # (B, H)
    norm_ptr,  # (3 H) or None
    drop_ptr,  # (B, H) or None
    grad_gates_ptr,  # (S, 3 H): r's written; z's are there
    grad_products_ptr,  # (S, 3 H): r's and z's written; or None
    grad_h_before_ptr,  # (B, H), added to
    norm_sums_ptr,  # (B, 2, 3 H): r's and z's added to, with norm
    first,
    before,
    have,
    rows,
    hidden,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    b, unit, mask = rows_and_units(rows, hidden, ROWS, COLUMNS, WIDE)
    token = first + b
    x = token * 3 * hidden + unit
    state_at = b * hidden + unit
    r = load_wide(activated_ptr, x, mask)
    h = load_before(h_ptr, h0_ptr, b, (before + b) * hidden + unit, state_at, have, mask)
    d_state = load_wide(grad_state_ptr, state_at, mask)
    if drop_ptr is not None:
        d_state *= load_wide(drop_ptr, state_at, mask)
    dh = load_wide(grad_h_before_ptr, state_at, mask) + d_state * r
    store(grad_h_before_ptr, state_at, dh, mask)
    dr = d_state * h * r * (1 - r)
    store(grad_gates_ptr, x, dr, mask)
    if norm_ptr is not None:
        dz = load_wide(grad_gates_ptr, x + hidden, mask)
        hat_r = load_wide(normalised_ptr, x, mask)
        hat_z = load_wide(normalised_ptr, x + hidden, mask)
        at, across = b * 6 * hidden + unit, 3 * hidden
        dr = gain_gradient(norm_ptr, norm_sums_ptr, at, across, 0, unit, hidden, dr, hat_r, mask)
        dz = gain_gradient(norm_ptr, norm_sums_ptr, at, across, 1, unit, hidden, dz, hat_z, mask)
        sums, along = tl.sum(dr + dz, 1), tl.sum(dr * hat_r + dz * hat_z, 1)
        rstd = rstd_at(rstd_ptr, token * 2, b < rows)
        dr = norm_gradient(dr, hat_r, sums, along, 2 * hidden, rstd)
        dz = norm_gradient(dz, hat_z, sums, along, 2 * hidden, rstd)
        store(grad_products_ptr, x, dr, mask)
        store(grad_products_ptr, x + hidden, dz, mask)
