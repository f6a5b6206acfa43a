"""The gradient of a recurrent layer in one direction, one step after the other, from the last to
the first (csrc/rnn.h)."""

import torch

from pydl import layout
from pydl.contract.rnn import RnnBackward
from pydl.reference import rnn_steps
from pydl.reference.rnn_steps import chunks, packed_rows, part_of_old, raised, rounded

Tensors = tuple[torch.Tensor, ...]


def _before(after: torch.Tensor, first: torch.Tensor, rows: list[slice], t: int, reverse: bool):
    """The states that step t starts from, of the states after each step."""
    n = rows[t].stop - rows[t].start
    t += 1 if reverse else -1
    if not 0 <= t < len(rows):
        return first[:n]
    there = after[rows[t]][:n]
    return torch.cat((there, first[len(there) : n]))


def _through_norm(dq: torch.Tensor, hat: torch.Tensor, rstd: torch.Tensor) -> torch.Tensor:
    """The gradient of x where that of its normalised rows ``hat`` is dq."""
    mean, along = dq.mean(1, keepdim=True), (dq * hat).mean(1, keepdim=True)
    return rstd * (dq - mean - hat * along)


def rnn_backward(call: RnnBackward) -> Tensors:
    """grad_gates, grad_products, grad_projected, grad_h0, grad_c0, grad_peephole, grad_norm,
    grad_norm_c."""
    y, h0, c0, cell, reverse = call.y, call.h0, call.c0, call.cell, call.reverse
    dy, dh, dc, ys, cs, act, hats, rstd, *weights = raised(*call[:17])
    w, h0_, c0_, w_hr, peep, gain, gain_c, shift_c, drop = weights
    rows = packed_rows(call.batch_sizes, y.shape[0], h0.shape[0])
    hidden = h0.shape[1] if c0 is None else c0.shape[1]
    dh = torch.zeros_like(h0_) if dh is None else dh
    if c0 is not None:
        dc = torch.zeros_like(c0_) if dc is None else dc
    d_gates, d_products, d_projected = {}, {}, {}
    d_peep = torch.zeros_like(peep) if peep is not None else layout.nothing(w)
    d_norm = w.new_zeros(2, w.shape[0]) if gain is not None else layout.nothing(w)
    d_norm_c = w.new_zeros(2, hidden) if gain_c is not None else layout.nothing(w)

    def through_products(dq: torch.Tensor, t: int, first: int, last: int) -> Tensors:
        """For the gradient of q of the gates first to last: that of p and of the state."""
        part = slice(first * hidden, last * hidden)
        dp = dq
        if gain is not None:
            hat = hats[rows[t], part]
            group = 1 if first == 2 else 0
            d_norm[:, part] += torch.stack(((dq * hat).sum(0), dq.sum(0)))
            dp = _through_norm(dq * gain[part], hat, rstd[rows[t], group : group + 1])
        return dp, dp @ w[part]

    for t in range(len(rows)) if reverse else reversed(range(len(rows))):
        now = rows[t]
        n = now.stop - now.start
        h_old = _before(ys, h0_, rows, t, reverse)
        dropped = h_old if drop is None else h_old * drop[:n]
        dh_t = dh[:n] if dy is None else dh[:n] + dy[now]
        dh_old = torch.zeros_like(dh_t)
        old = part_of_old(call.zone_h, call.zoneout_h, now)
        if old is not None:
            dh_old, dh_t = old * dh_t, (1 - old) * dh_t
        if cell == "lstm":
            i, f, g, o = chunks(act[now], 4)
            c_old = _before(cs, c0_, rows, t, reverse)
            if w_hr is not None:
                d_projected[t] = dh_t
                dh_t = dh_t @ w_hr
            old = part_of_old(call.zone_c, call.zoneout_c, now)
            c_new = cs[now] if old is None else f * c_old + i * g
            hat, rstd_c = rnn_steps.normalised(c_new, call.eps)
            shown = torch.tanh(c_new if gain_c is None else hat * gain_c + shift_c)
            d_shown = dh_t * o * (1 - shown**2)
            do = dh_t * shown * o * (1 - o)
            if gain_c is not None:
                d_norm_c += torch.stack(((d_shown * hat).sum(0), d_shown.sum(0)))
                d_shown = _through_norm(d_shown * gain_c, hat, rstd_c)
            dc_old, dc_new = (0, dc[:n]) if old is None else (old * dc[:n], (1 - old) * dc[:n])
            dc_new = dc_new + d_shown
            if peep is not None:
                dc_new = dc_new + do * peep[2]
            di, df, dg = dc_new * g * i * (1 - i), dc_new * c_old * f * (1 - f), dc_new * i
            dg = dg * (1 - g**2)
            dc_old = dc_old + dc_new * f
            if peep is not None:
                dc_old = dc_old + di * peep[0] + df * peep[1]
                d_peep += torch.stack(
                    ((di * c_old).sum(0), (df * c_old).sum(0), (do * c_new).sum(0))
                )
            d_gates[t] = torch.cat((di, df, dg, do), 1)
            d_products[t], d_state = through_products(d_gates[t], t, 0, 4)
            dc = torch.cat((dc_old, dc[n:]))
        elif cell.startswith("gru"):
            r, z, n_t = chunks(act[now][:, : 3 * hidden], 3)
            dn = dh_t * (1 - z) * (1 - n_t**2)
            dz = dh_t * (h_old - n_t) * z * (1 - z)
            dh_old = dh_old + dh_t * z
            if cell == "gru":
                dr = dn * act[now][:, 3 * hidden :]
                d_product_n, d_state = through_products(dn * r, t, 2, 3)
            else:
                d_product_n, d_state = through_products(dn, t, 2, 3)
                dr, d_state = d_state * dropped, d_state * r
            dr = dr * r * (1 - r)
            d_products[t], more = through_products(torch.cat((dr, dz), 1), t, 0, 2)
            d_state = d_state + more
            d_gates[t] = torch.cat((dr, dz, dn), 1)
            d_products[t] = (
                d_product_n if gain is None else torch.cat((d_products[t], d_product_n), 1)
            )
        else:
            a = act[now]
            d_gates[t] = dh_t * (a > 0) if cell == "rnn_relu" else dh_t * (1 - a**2)
            d_products[t], d_state = through_products(d_gates[t], t, 0, 1)
        dh_old = dh_old + (d_state if drop is None else d_state * drop[:n])
        dh = torch.cat((dh_old, dh[n:]))

    def all_steps(steps: dict[int, torch.Tensor], wanted: bool) -> torch.Tensor:
        if not (wanted and steps):
            return layout.nothing(y)
        return torch.cat([steps[t] for t in range(len(rows))]).to(y.dtype)

    return (
        all_steps(d_gates, True),
        all_steps(d_products, gain is not None or cell == "gru"),
        all_steps(d_projected, True),
        dh.to(y.dtype),
        rounded(dc if c0 is not None else None, y),
        d_peep,
        d_norm,
        d_norm_c,
    )
