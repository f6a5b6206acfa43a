"""A recurrent layer step by step: each step a few launches (definition: csrc/rnn.h), for any size
and every option. Where rnn_sequence.py serves, its one launch does the same.

    forward    p = weight_hh (h * drop)     rnn_product   gru_reset_before: r and z, then
                                                          rnn_reset, then n
               the gates, layer norms, c'   rnn_cell      and without a projection h'
               weight_hr u, h'              rnn_product, rnn_projected
    backward   the same, last to first

The states that run through the steps are in one place per sequence: h_n itself, c and their
gradients in the type of sums.
"""

from typing import NamedTuple

import torch

from pydl import layout

from . import rnn_cell
from .rnn_cell import rnn_cell_forward_kernel
from .rnn_cell_backward import rnn_cell_backward_kernel
from .rnn_product import product, rnn_projected_backward_kernel, rnn_projected_kernel
from .rnn_reset import rnn_reset_backward_kernel, rnn_reset_kernel

Tensors = dict[str, torch.Tensor | None]


class How(NamedTuple):
    """What of a layer is no tensor."""

    cell: str
    reverse: bool
    zoneout_h: float
    zoneout_c: float
    eps: float

    def options(self, tensors: Tensors) -> dict[str, str | float | bool]:
        """What a cell's kernel takes of it. A mask stands for its number."""
        zoneout_h = 0.0 if tensors["zone_h"] is not None else float(self.zoneout_h)
        zoneout_c = 0.0 if tensors["zone_c"] is not None else float(self.zoneout_c)
        return {
            "CELL": self.cell,
            "zoneout_h": zoneout_h,
            "zoneout_c": zoneout_c,
            "eps": float(self.eps),
            "MIXES_H": zoneout_h > 0,
            "MIXES_C": zoneout_c > 0,
        }


class Step(NamedTuple):
    """Where the tokens of a step lie."""

    first: int
    rows: int
    before: int  # the first token of the step before
    have: int  # how many that has: 0 where there is none


def steps_of(sizes: list[int], reverse: bool) -> list[Step]:
    """The steps in the order in which the layer goes through them."""
    firsts = [0]
    for size in sizes:
        firsts.append(firsts[-1] + size)
    out, before, have = [], 0, 0
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        out.append(Step(firsts[t], sizes[t], before, have))
        before, have = firsts[t], sizes[t]
    return out


def running(like: torch.Tensor, value: torch.Tensor | None) -> torch.Tensor:
    """A matrix of the shape of ``like`` in the type of sums that starts from this value, or from
    zeros."""
    out = layout.empty(like.shape, like, dtype=layout.sums_dtype(like))
    return out.zero_() if value is None else out.copy_(value)


def scratch(like: torch.Tensor, columns: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """An unwritten (sequences, columns)."""
    return layout.empty((like.shape[0], columns), like, dtype=dtype)


def forward(tensors: Tensors, steps: list[Step], how: How) -> None:
    """Writes y, h_n, c_n and what is kept, all of which are in ``tensors``."""
    gates, weight, h_n, c_n = (tensors[name] for name in ("gates", "weight_hh", "h_n", "c_n"))
    weight_hr, drop = tensors["weight_hr"], tensors["drop"]
    sequences, state = h_n.shape
    hidden = state if c_n is None else c_n.shape[1]
    sums = layout.sums_dtype(gates)
    h_n.copy_(tensors["h0"])
    c = None if c_n is None else running(c_n, tensors["c0"])
    p = scratch(h_n, gates.shape[1], sums)
    reset = how.cell == "gru_reset_before"
    after_reset = scratch(h_n, hidden) if reset else None
    u = None if weight_hr is None else scratch(h_n, hidden)
    projected = None if weight_hr is None else scratch(h_n, state, sums)
    options = how.options(tensors)
    reads_h = how.cell.startswith("gru") or (
        weight_hr is None and (tensors["zone_h"] is not None or how.zoneout_h > 0)
    )
    tile = rnn_cell.tile_of(sequences, hidden, tensors["norm"] is not None)
    cell = {
        **tensors,
        "products": p,
        "h": h_n if reads_h else None,
        "h_next": None if u is not None else h_n,
        "y": None if u is not None else tensors["y"],
        "c": c,
        "c_next": c,
        "c_kept": tensors["c_kept"],
        "u": u,
    }
    for step in steps:
        at = {"first": step.first, "rows": step.rows, "hidden": hidden}
        of = {"first": 0, "rows": step.rows, "sequences": sequences, "transposed": True}
        if reset:
            product(h_n, weight[: 2 * hidden], p, **of, drop=drop)
            rnn_cell.launch(
                rnn_reset_kernel,
                tile,
                {**cell, "state": after_reset},
                **at,
                eps=options["eps"],
            )
            product(after_reset, weight[2 * hidden :], p[:, 2 * hidden :], **of)
        else:
            product(h_n, weight, p, **of, drop=drop)
        rnn_cell.launch(rnn_cell_forward_kernel, tile, cell, **at, **options)
        if u is not None:
            product(u, weight_hr, projected, **of)
            rnn_cell.launch(
                rnn_projected_kernel,
                rnn_cell.tile_of(sequences, state, whole_rows=False),
                {**tensors, "products": projected, "h_next": h_n},
                first=step.first,
                rows=step.rows,
                hidden=state,
                zoneout_h=options["zoneout_h"],
                MIXES_H=options["MIXES_H"],
            )
    if c is not None:
        c_n.copy_(c)


def backward(tensors: Tensors, steps: list[Step], how: How) -> None:
    """Writes the gradients, all of which are in ``tensors``; those that add up over sequences as a
    number per sequence: peephole_sums, norm_sums, norm_c_sums."""
    weight, weight_hr = tensors["weight_hh"], tensors["weight_hr"]
    norm, drop = tensors["norm"], tensors["drop"]
    grad_gates, grad_products = tensors["grad_gates"], tensors["grad_products"]
    grad_h0, grad_c0 = tensors["grad_h0"], tensors["grad_c0"]
    sequences, state = grad_h0.shape
    hidden = state if grad_c0 is None else grad_c0.shape[1]
    sums = layout.sums_dtype(grad_gates)
    dh = running(grad_h0, tensors["grad_h_n"])
    dc = None if grad_c0 is None else running(grad_c0, tensors["grad_c_n"])
    reset = how.cell == "gru_reset_before"
    gru = how.cell.startswith("gru")
    zoned = tensors["zone_h"] is not None or how.zoneout_h > 0
    options = how.options(tensors)
    tile = rnn_cell.tile_of(sequences, hidden, norm is not None)
    projects = weight_hr is not None
    grad_u = scratch(grad_h0, hidden, sums) if projects else None
    grad_state = scratch(grad_h0, hidden, sums) if reset else None
    cell = {
        **tensors,
        "grad_h": grad_u if projects else dh,
        "grad_y": None if projects else tensors["grad_y"],
        "grad_c": dc,
        "h": tensors["y"] if gru else None,
        "h0": tensors["h0"] if gru else None,
        "c_next": None if tensors["zone_c"] is not None or how.zoneout_c > 0 else tensors["c"],
        "zone_h": None if projects else tensors["zone_h"],
        "grad_h_before": dh if gru or (zoned and not projects) else None,
        "grad_c_before": dc,
    }
    of_cell = options | ({"zoneout_h": 0.0, "MIXES_H": False} if projects else {})
    # The gradients of p, each with the rows of the weight that made it.
    rz, n = slice(0, 2 * hidden), slice(2 * hidden, None)
    dp = grad_gates if norm is None else grad_products
    if how.cell == "gru" and norm is None:
        parts = [(grad_gates[:, rz], weight[rz]), (grad_products, weight[n])]
    elif reset:
        parts = [(dp[:, rz], weight[rz])]
    else:
        parts = [(dp, weight)]
    for step in reversed(steps):
        at = {"first": step.first, "rows": step.rows, "hidden": hidden}
        of = {"first": step.first, "rows": step.rows, "sequences": sequences, "transposed": False}
        there = {"before": step.before, "have": step.have}
        if projects:
            rnn_cell.launch(
                rnn_projected_backward_kernel,
                rnn_cell.tile_of(sequences, state, whole_rows=False),
                {**tensors, "grad_h": dh},
                first=step.first,
                rows=step.rows,
                hidden=state,
                zoneout_h=options["zoneout_h"],
            )
            product(tensors["grad_projected"], weight_hr, grad_u, **of)
        rnn_cell.launch(
            rnn_cell_backward_kernel,
            tile,
            cell,
            **at,
            **there,
            **of_cell,
            ONLY_N=how.cell == "gru" and norm is None,
        )
        if reset:
            product(dp[:, n], weight[n], grad_state, **of)
            rnn_cell.launch(
                rnn_reset_backward_kernel, tile, {**cell, "grad_state": grad_state}, **at, **there
            )
        for i, (part, rows_of_weight) in enumerate(parts):
            into = gru or zoned or i > 0
            product(part, rows_of_weight, dh, **of, factor=drop, accumulate=into)
    grad_h0.copy_(dh)
    if dc is not None:
        grad_c0.copy_(dc)
