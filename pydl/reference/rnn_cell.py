"""One step of a recurrent layer after both products, and its gradient (csrc/rnn.h)."""

import torch

from pydl import layout
from pydl.contract.rnn import RnnCellBackward, RnnCellForward
from pydl.reference.rnn_steps import ACTIVATIONS, chunks, raised, rounded

Tensors = tuple[torch.Tensor, ...]


def rnn_cell_forward(call: RnnCellForward) -> Tensors:
    """h and c after the step, and, where ``keep``, the activated gates."""
    gates, products, h, c, peephole, cell, keep = call
    x, q, h_old, c_old, peep = raised(gates, products, h, c, peephole)
    c_new = None
    if cell == "lstm":
        i, f, g, o = chunks(x + q, 4)
        if peep is not None:
            i, f = i + c_old * peep[0], f + c_old * peep[1]
        i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
        c_new = f * c_old + i * g
        o = torch.sigmoid(o if peep is None else o + c_new * peep[2])
        h_new = o * torch.tanh(c_new)
        activated = torch.cat((i, f, g, o), 1)
    elif cell == "gru":
        (x_r, x_z, x_n), (q_r, q_z, q_n) = chunks(x, 3), chunks(q, 3)
        r, z = torch.sigmoid(x_r + q_r), torch.sigmoid(x_z + q_z)
        n = torch.tanh(x_n + r * q_n)
        h_new = (1 - z) * n + z * h_old
        activated = torch.cat((r, z, n, q_n), 1)
    else:
        h_new = activated = ACTIVATIONS[cell](x + q)
    kept = activated.to(gates.dtype) if keep else layout.nothing(gates)
    if kept is h_new:
        kept = h_new.clone()
    return h_new.to(gates.dtype), rounded(c_new, gates), kept


def rnn_cell_backward(call: RnnCellBackward) -> Tensors:
    """grad_gates, grad_products, grad_h_before, grad_c_before, grad_peephole."""
    grad_h, grad_c, activated, h, c, c_next, peephole, cell = call
    given = grad_h, grad_c, activated, h, c, c_next, peephole
    dh, dc, a, h_old, c_old, c_new, peep = raised(*given)
    hidden = activated.shape[1] // {"lstm": 4, "gru": 4}.get(cell, 1)
    zeros = a.new_zeros(a.shape[0], hidden)
    dh = zeros if dh is None else dh
    dq = dh_old = dc_old = None
    dpeep = layout.nothing(a)
    if cell == "lstm":
        i, f, g, o = chunks(a, 4)
        shown = torch.tanh(c_new)
        do = dh * shown * o * (1 - o)
        dc = dh * o * (1 - shown**2) + (zeros if dc is None else dc)
        if peep is not None:
            dc = dc + do * peep[2]
        di, df, dg = dc * g * i * (1 - i), dc * c_old * f * (1 - f), dc * i * (1 - g**2)
        dc_old = dc * f
        if peep is not None:
            dc_old = dc_old + di * peep[0] + df * peep[1]
            dpeep = torch.stack([(di * c_old).sum(0), (df * c_old).sum(0), (do * c_new).sum(0)])
        dx = torch.cat((di, df, dg, do), 1)
    elif cell == "gru":
        r, z, n, q_n = chunks(a, 4)
        dn = dh * (1 - z) * (1 - n**2)
        dr, dz = dn * q_n * r * (1 - r), dh * (h_old - n) * z * (1 - z)
        dx, dq = torch.cat((dr, dz, dn), 1), torch.cat((dr, dz, dn * r), 1)
        dh_old = dh * z
    else:
        dx = dh * (a > 0) if cell == "rnn_relu" else dh * (1 - a**2)
    return *(rounded(grad, activated) for grad in (dx, dq, dh_old, dc_old)), dpeep
