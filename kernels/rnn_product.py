"""The products of one step of a recurrent layer (definition: csrc/rnn.h), and what a projection has
between its product and the state.

    out[b, n] = factor[b, n] * sum over k of a[b, k] * drop[b, k] * weight(k, n)

with a weight's rows along k or n: the products of h, forward, and those of their gradients. A
program covers BLOCK_M sequences by BLOCK_N columns. Its result is in the type of sums, a number of
the step's alone that stays in the L2 cache; the weight is read once per step, from there too where
it fits.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from . import conv_tiles, runtime
from .elements import as_offset, filled, narrow, operand, widen
from .rnn_cell import STEP
from .rnn_gates import load_wide, mixed, part_of_old, rows_and_units, store

# BLOCK_M for up to 16 sequences and for more, BLOCK_N, BLOCK_K, num_stages by what the operands
# are. Few sequences are usual, so the columns are cut small to fill the machine.
TILES = {
    "half": (16, 64, 32, 64, 3),
    "tf32": (16, 32, 32, 32, 3),
    "float": (16, 32, 32, 32, 2),
    "double": (16, 32, 32, 16, 2),
}


@triton.jit(do_not_specialize=STEP)
def rnn_product_kernel(
    a_ptr,  # (.., a_stride), of which it takes K columns
    drop_ptr,  # (B, K) or None
    weight_ptr,  # K rows of N numbers; TRANSPOSED: N rows of K numbers
    factor_ptr,  # (B, N) or None
    out_ptr,  # (B, out_stride), of which it writes N columns; ACCUMULATE: adds to them
    first,  # row of a
    rows,
    a_stride,
    out_stride,
    inner,  # K
    columns,  # N
    TRANSPOSED: tl.constexpr,
    ACCUMULATE: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    n_blocks = (columns + BLOCK_N - 1) // BLOCK_N
    b = program // n_blocks * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = program % n_blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    lane = as_offset(tl.arange(0, BLOCK_K), WIDE)
    total = filled([BLOCK_M, BLOCK_N], 0.0, a_ptr)
    a_row = a_ptr + (first + b) * a_stride
    for start in range(0, inner, BLOCK_K):
        k = start + lane
        mask = (b < rows) & (k[None, :] < inner)
        a = tl.load(a_row + k[None, :], mask=mask, other=0.0)
        if drop_ptr is not None:
            a = narrow(load_wide(drop_ptr, b * inner + k[None, :], mask) * widen(a), a_ptr)
        if TRANSPOSED:
            w = tl.load(
                weight_ptr + n[:, None] * inner + k[None, :],
                mask=(n[:, None] < columns) & (k[None, :] < inner),
                other=0.0,
            )
            w = tl.trans(w)  # [BLOCK_K, BLOCK_N]
        else:
            w = tl.load(
                weight_ptr + k[:, None] * columns + n[None, :],
                mask=(n[None, :] < columns) & (k[:, None] < inner),
                other=0.0,
            )
        total = tl.dot(
            operand(a, INPUT_PRECISION),
            operand(w, INPUT_PRECISION),
            total,
            input_precision=INPUT_PRECISION,
            out_dtype=total.dtype,
        )
    mask = (b < rows) & (n[None, :] < columns)
    if factor_ptr is not None:
        total *= load_wide(factor_ptr, b * columns + n[None, :], mask)
    at = b * out_stride + n[None, :]
    if ACCUMULATE:
        total += tl.load(out_ptr + at, mask=mask, other=0.0)
    tl.store(out_ptr + at, total, mask=mask)


@triton.jit(do_not_specialize=STEP)
def rnn_projected_kernel(
    products_ptr,  # (B, P): weight_hr u
    zone_h_ptr,  # (S, P) or None
    h_next_ptr,  # (B, P): the old h, written
    y_ptr,  # (S, P), written
    first,
    rows,
    hidden,  # P
    zoneout_h: tl.float64,
    MIXES_H: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    b, unit, mask = rows_and_units(rows, hidden, ROWS, COLUMNS, WIDE)
    at = (first + b) * hidden + unit
    h_new = load_wide(products_ptr, b * hidden + unit, mask)
    old = load_wide(h_next_ptr, b * hidden + unit, mask)
    h_new = mixed(h_new, old, zone_h_ptr, at, mask, zoneout_h, MIXES_H)
    store(h_next_ptr, b * hidden + unit, h_new, mask)
    store(y_ptr, at, h_new, mask)


@triton.jit(do_not_specialize=STEP)
def rnn_projected_backward_kernel(
    grad_h_ptr,  # (B, P): of h after the step, written: that before it, but for the products
    grad_y_ptr,  # (S, P) or None
    zone_h_ptr,  # (S, P) or None
    grad_projected_ptr,  # (S, P), written
    first,
    rows,
    hidden,  # P
    zoneout_h: tl.float64,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDE: tl.constexpr,
):
    b, unit, mask = rows_and_units(rows, hidden, ROWS, COLUMNS, WIDE)
    at = (first + b) * hidden + unit
    dh = load_wide(grad_h_ptr, b * hidden + unit, mask)
    if grad_y_ptr is not None:
        dh += load_wide(grad_y_ptr, at, mask)
    old = part_of_old(zone_h_ptr, at, mask, dh, zoneout_h)
    store(grad_projected_ptr, at, (1 - old) * dh, mask)
    store(grad_h_ptr, b * hidden + unit, old * dh, mask)


def product(
    a: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    first: int,
    rows: int,
    sequences: int,
    *,
    transposed: bool,
    drop: torch.Tensor | None = None,
    factor: torch.Tensor | None = None,
    accumulate: bool = False,
) -> None:
    """Launches rnn_product_kernel. ``a`` and ``out`` may be some columns of a larger matrix."""
    columns, inner = weight.shape if transposed else weight.shape[::-1]
    few, many, block_n, block_k, stages = TILES[conv_tiles.operands(a.dtype, "rnn")]
    block_m = few if sequences <= few else many
    tensors: list[Any] = [a, weight, out, *(t for t in (drop, factor) if t is not None)]
    runtime.launch(
        rnn_product_kernel,
        triton.cdiv(rows, block_m) * triton.cdiv(columns, block_n),
        a.device,
        a,
        drop,
        weight,
        factor,
        out,
        first,
        rows,
        a.stride(0),
        out.stride(0),
        inner,
        columns,
        TRANSPOSED=transposed,
        ACCUMULATE=accumulate,
        INPUT_PRECISION=conv_tiles.input_precision(a.dtype, "rnn"),
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        WIDE=runtime.wide(*tensors),
        num_warps=4,
        num_stages=stages,
        maxnreg=runtime.ALL_REGISTERS if a.dtype == torch.float64 else None,
    )
