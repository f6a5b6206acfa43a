"""A recurrent layer in one direction from its definition: csrc/rnn.h has the equations, the shapes
and the names. Backward is rnn_backward.py's, one step of it rnn_cell.py's.

Where something does not apply, an argument is None and a result has no elements.
"""

import torch

from pydl import layout
from pydl.contract.rnn import RnnForward
from pydl.reference.rnn_backward import rnn_backward
from pydl.reference.rnn_cell import rnn_cell_backward, rnn_cell_forward
from pydl.reference.rnn_steps import (
    ACTIVATIONS,
    chunks,
    normalised,
    packed_rows,
    part_of_old,
    raised,
    rounded,
)

__all__ = ["rnn_backward", "rnn_cell_backward", "rnn_cell_forward", "rnn_forward"]

Tensors = tuple[torch.Tensor, ...]


def rnn_forward(call: RnnForward) -> Tensors:
    """y, h_n, c_n and, where ``keep``, what backward needs: c, activated, normalised, rstd,
    unprojected."""
    gates, h0, c0 = call.gates, call.h0, call.c0
    cell, keep = call.cell, call.keep
    low = gates.dtype
    x, w, b, h, c, w_hr, peep, gain, gain_c, shift_c, drop = raised(*call[:11])
    rows = packed_rows(call.batch_sizes, gates.shape[0], h0.shape[0])
    hidden = h0.shape[1] if c0 is None else c0.shape[1]
    kept: dict[str, dict[int, torch.Tensor]] = {
        name: {} for name in ("y", "c", "activated", "normalised", "rstd", "unprojected")
    }

    def products(state: torch.Tensor, first: int, last: int) -> Tensors:
        """q of the gates first to last for a state; with them their parts of normalised, rstd."""
        p = state @ w[first * hidden : last * hidden].T
        if gain is None:
            return p + (0 if b is None else b[first * hidden : last * hidden]), p, p
        p, rstd = normalised(p, call.eps)
        q = p * gain[first * hidden : last * hidden]
        return q + (0 if b is None else b[first * hidden : last * hidden]), p, rstd

    for t in reversed(range(len(rows))) if call.reverse else range(len(rows)):
        now = rows[t]
        n = now.stop - now.start
        x_t, h_old = x[now], h[:n]
        state = h_old if drop is None else h_old * drop[:n]
        if cell == "lstm":
            q, p, rstd = products(state, 0, 4)
            c_old = c[:n]
            at_i, at_f, at_o = (
                (c_old * peep[0], c_old * peep[1], peep[2])
                if call.peephole is not None
                else (0, 0, None)
            )
            a_i, a_f, a_g, a_o = chunks(x_t + q, 4)
            i, f, g = torch.sigmoid(a_i + at_i), torch.sigmoid(a_f + at_f), torch.tanh(a_g)
            c_new = f * c_old + i * g
            o = torch.sigmoid(a_o if at_o is None else a_o + c_new * at_o)
            shown = c_new
            if gain_c is not None:
                shown = normalised(c_new, call.eps)[0] * gain_c + shift_c
            u = o * torch.tanh(shown)
            kept["activated"][t] = torch.cat((i, f, g, o), 1)
            kept["unprojected"][t] = u
            h_new = u if w_hr is None else u @ w_hr.T
            old = part_of_old(call.zone_c, call.zoneout_c, now)
            c_new = c_new if old is None else old * c_old + (1 - old) * c_new
            kept["c"][t] = c_new
            c = torch.cat((c_new, c[n:]))
        elif cell.startswith("gru"):
            q_rz, p, rstd = products(state, 0, 2)
            r, z = chunks(torch.sigmoid(x_t[:, : 2 * hidden] + q_rz), 2)
            if cell == "gru":
                q_n, p_n, rstd_n = products(state, 2, 3)
                n_t = torch.tanh(x_t[:, 2 * hidden :] + r * q_n)
                kept["activated"][t] = torch.cat((r, z, n_t, q_n), 1)
            else:
                q_n, p_n, rstd_n = products(r * state, 2, 3)
                n_t = torch.tanh(x_t[:, 2 * hidden :] + q_n)
                kept["activated"][t] = torch.cat((r, z, n_t), 1)
            p, rstd = torch.cat((p, p_n), 1), torch.cat((rstd, rstd_n), 1)
            h_new = (1 - z) * n_t + z * h_old
        else:
            q, p, rstd = products(state, 0, 1)
            h_new = kept["activated"][t] = ACTIVATIONS[cell](x_t + q)
        if gain is not None:
            kept["normalised"][t], kept["rstd"][t] = p, rstd
        old = part_of_old(call.zone_h, call.zoneout_h, now)
        h_new = h_new if old is None else old * h_old + (1 - old) * h_new
        kept["y"][t] = h_new
        h = torch.cat((h_new, h[n:]))

    def all_steps(name: str, wanted: bool, dtype: torch.dtype) -> torch.Tensor:
        steps = [kept[name][t] for t in range(len(rows)) if kept[name]]
        if not (wanted and steps):
            return layout.nothing(gates, dtype=dtype)
        return torch.cat(steps).to(dtype)

    sums = x.dtype
    return (
        all_steps("y", True, low),
        h.to(low),
        rounded(c, gates),
        all_steps("c", keep, sums),
        all_steps("activated", keep, low),
        all_steps("normalised", keep, low),
        all_steps("rstd", keep, sums),
        all_steps("unprojected", keep and call.weight_hr is not None, low),
    )
