"""A recurrent layer as one would write it with PyTorch's operators: a loop over the steps.

PyTorch's own recurrent operators take whole networks; where one of them computes the same,
``pydl.ops.rnn`` calls it instead. And PyTorch has no gradient that begins at what a forward kept:
here autograd differentiates the loop, and another backend's forward has the reference's.
"""

import torch
from torch.nn.functional import layer_norm, linear

from pydl import layout
from pydl.contract.rnn import RnnCellForward, RnnForward
from pydl.reference.rnn import rnn_backward, rnn_cell_backward

__all__ = ["rnn_backward", "rnn_cell_backward", "rnn_cell_forward", "rnn_forward"]

Tensors = tuple[torch.Tensor, ...]
_ACTIVATIONS = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu}


def _step_sizes(batch_sizes: torch.Tensor | None, tokens: int, sequences: int) -> list[int]:
    if batch_sizes is None:
        return [sequences] * (tokens // max(sequences, 1))
    return batch_sizes.tolist()


def _norm(
    p: torch.Tensor, gain: torch.Tensor, bias: torch.Tensor | None, eps: float, keep: bool
) -> Tensors:
    """The rows of p normalised, with their gain and bias; before these; 1 / their deviation."""
    if not keep:
        return layer_norm(p, gain.shape, gain, bias, eps), p, p
    hat, _, rstd = torch.native_layer_norm(p, gain.shape, None, None, eps)
    return (hat * gain if bias is None else torch.addcmul(bias, hat, gain)), hat, rstd


def _mixed(
    new: torch.Tensor, old: torch.Tensor, mask: torch.Tensor | None, zoneout: float
) -> torch.Tensor:
    if mask is not None:
        return torch.where(mask.bool(), old, new)
    return torch.lerp(new, old, zoneout) if zoneout > 0 else new


def rnn_forward(call: RnnForward) -> Tensors:
    gates, h0, c0, weight_hr = call.gates, call.h0, call.c0, call.weight_hr
    peephole, norm, cell, keep = call.peephole, call.norm, call.cell, call.keep
    sizes = _step_sizes(call.batch_sizes, gates.shape[0], h0.shape[0])
    hidden = h0.shape[1] if c0 is None else c0.shape[1]
    steps = range(len(sizes))
    inputs = gates.split(sizes)
    masks = {
        name: mask.split(sizes) if mask is not None else [None] * len(sizes)
        for name, mask in (("h", call.zone_h), ("c", call.zone_c))
    }
    split = 2 * hidden if cell.startswith("gru") else call.weight_hh.shape[0]
    w = call.weight_hh.split(split)
    b = call.bias_hh.split(split) if call.bias_hh is not None else (None, None)
    gain = norm.split(split) if norm is not None else (None, None)
    kept: dict[str, list] = {
        name: [None] * len(sizes) for name in ("y", "c", "activated", "hat", "rstd", "shown")
    }

    def products(state: torch.Tensor, part: int) -> Tensors:
        if norm is None:
            return linear(state, w[part], b[part]), state, state
        return _norm(linear(state, w[part]), gain[part], b[part], call.eps, keep)

    h, c = h0, c0
    for t in reversed(steps) if call.reverse else steps:
        n = sizes[t]
        ended_h, h = h[n:], h[:n]
        state = h if call.drop is None else h * call.drop[:n]
        q, hat, rstd = products(state, 0)
        if cell == "lstm":
            ended_c, c = c[n:], c[:n]
            i, f, g, o = (inputs[t] + q).chunk(4, 1)
            if peephole is not None:
                i, f = torch.addcmul(i, c, peephole[0]), torch.addcmul(f, c, peephole[1])
            i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
            new_c = f * c + i * g
            o = torch.sigmoid(o if peephole is None else torch.addcmul(o, new_c, peephole[2]))
            seen = (
                new_c
                if call.norm_c is None
                else layer_norm(new_c, (hidden,), call.norm_c, call.bias_c, call.eps)
            )
            new = shown = o * torch.tanh(seen)
            if weight_hr is not None:
                new = linear(shown, weight_hr)
            c = kept["c"][t] = _mixed(new_c, c, masks["c"][t], call.zoneout_c)
            c = torch.cat((c, ended_c)) if len(ended_c) else c
            if keep:
                kept["activated"][t], kept["shown"][t] = torch.cat((i, f, g, o), 1), shown
        elif cell.startswith("gru"):
            x_rz, x_n = inputs[t].split((2 * hidden, hidden), 1)
            r, z = torch.sigmoid(x_rz + q).chunk(2, 1)
            q_n, hat_n, rstd_n = products(state if cell == "gru" else r * state, 1)
            new_n = torch.tanh(torch.addcmul(x_n, r, q_n) if cell == "gru" else x_n + q_n)
            new = torch.lerp(new_n, h, z)
            if keep:
                gates_t = (r, z, new_n, q_n) if cell == "gru" else (r, z, new_n)
                kept["activated"][t] = torch.cat(gates_t, 1)
                hat, rstd = torch.cat((hat, hat_n), 1), torch.cat((rstd, rstd_n), 1)
        else:
            new = kept["activated"][t] = _ACTIVATIONS[cell](inputs[t] + q)
        kept["hat"][t], kept["rstd"][t] = hat, rstd
        h = kept["y"][t] = _mixed(new, h, masks["h"][t], call.zoneout_h)
        h = torch.cat((h, ended_h)) if len(ended_h) else h

    def all_steps(name: str, wanted: object, dtype: torch.dtype) -> torch.Tensor:
        if not wanted:
            return layout.nothing(gates, dtype=dtype)
        return torch.cat(kept[name]).to(dtype)

    sums = layout.sums_dtype(gates)
    return (
        all_steps("y", True, gates.dtype),
        h,
        c if c is not None else layout.nothing(gates),
        all_steps("c", keep and c is not None, sums),
        all_steps("activated", keep, gates.dtype),
        all_steps("hat", keep and norm is not None, gates.dtype),
        all_steps("rstd", keep and norm is not None, sums),
        all_steps("shown", keep and weight_hr is not None, gates.dtype),
    )


def rnn_cell_forward(call: RnnCellForward) -> Tensors:
    gates, products, h, c, peephole, cell, keep = call
    new_c = layout.nothing(gates)
    activated: Tensors
    if cell == "lstm":
        i, f, g, o = (gates + products).chunk(4, 1)
        if peephole is not None:
            i, f = torch.addcmul(i, c, peephole[0]), torch.addcmul(f, c, peephole[1])
        i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
        new_c = f * c + i * g
        o = torch.sigmoid(o if peephole is None else torch.addcmul(o, new_c, peephole[2]))
        new, activated = o * torch.tanh(new_c), (i, f, g, o)
    elif cell == "gru":
        (x_r, x_z, x_n), (q_r, q_z, q_n) = gates.chunk(3, 1), products.chunk(3, 1)
        r, z = torch.sigmoid(x_r + q_r), torch.sigmoid(x_z + q_z)
        n = torch.tanh(torch.addcmul(x_n, r, q_n))
        new, activated = torch.lerp(n, h, z), (r, z, n, q_n)
    else:
        new = _ACTIVATIONS[cell](gates + products)
        activated = (new,)
    return new, new_c, torch.cat(activated, 1) if keep else layout.nothing(gates)
