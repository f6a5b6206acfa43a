"""One step of a recurrent network: both products by PyTorch, all behind them one operator."""

import torch
from torch import _VF
from torch.nn.functional import linear

from pydl import backends, rnn_results
from pydl.ops import rnn
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import by_reference, needs_grad
from pydl.ops.registry import operator
from pydl.ops.rnn import Regularisation, Tensors, Weights
from pydl.reference import rnn_cell as reference

_forward = operator(
    "rnn_cell_forward(Tensor gates, Tensor products, Tensor? h, Tensor? c, Tensor? peephole, "
    "str cell, bool keep, str backend) -> (Tensor, Tensor, Tensor)",
    lambda gates, products, h, c, peephole, cell, keep, _: rnn_results.cell_forward(
        gates, cell, keep
    ),
)
_backward = operator(
    "rnn_cell_backward(Tensor? grad_h, Tensor? grad_c, Tensor activated, Tensor? h, Tensor? c, "
    "Tensor? c_next, Tensor? peephole, str cell, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    lambda grad_h, grad_c, activated, h, c, c_next, peephole, cell, _: rnn_results.cell_backward(
        activated, cell, peephole is not None
    ),
)


class _Cell(torch.autograd.Function):
    """h and c after the step."""

    @staticmethod
    def forward(ctx, gates, products, h, c, peephole, cell, backend):
        h_next, c_next, activated = _forward(gates, products, h, c, peephole, cell, True, backend)
        ctx.save_for_backward(gates, products, h, c, peephole, activated, c_next)
        ctx.how = cell, backend
        ctx.set_materialize_grads(False)
        return h_next, c_next

    @staticmethod
    def backward(ctx, grad_h, grad_c):
        *operands, activated, c_next = ctx.saved_tensors
        grad_c = grad_c if ctx.how[0] == "lstm" else None
        grads = apply(_CellGrad, grad_h, grad_c, *operands, activated, c_next, *ctx.how)
        needed = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad if need else None for grad, need in needed), None, None


class _CellGrad(torch.autograd.Function):
    """The gradients of gates, products, h, c and peephole; None for one that is not there."""

    @staticmethod
    def forward(ctx, grad_h, grad_c, *rest):
        gates, products, h, c, peephole, activated, c_next, cell, backend = rest
        ctx.save_for_backward(grad_h, grad_c, gates, products, h, c, peephole)
        ctx.cell = cell
        states = h, c, c_next if cell == "lstm" else None
        made = _backward(grad_h, grad_c, activated, *states, peephole, cell, backend)
        for_gates, for_products, for_h, for_c, for_peephole = made
        return (
            for_gates,
            # One gradient for two operands may be one tensor, but not where a graph is made of it.
            for_products if cell == "gru" else for_gates.view_as(for_gates),
            None if h is None else for_h,
            None if c is None else for_c,
            None if peephole is None else for_peephole.to(peephole.dtype),
        )

    @staticmethod
    def backward(ctx, *grad_results):
        saved, cell = ctx.saved_tensors, ctx.cell
        present = [index for index, tensor in enumerate(saved) if tensor is not None]

        def gradients(*tensors):
            given: list[torch.Tensor | None] = [None] * len(saved)
            for index, tensor in zip(present, tensors, strict=True):
                given[index] = tensor
            _, _, activated = reference.rnn_cell_forward(*given[2:], cell, True)
            c_next = None
            if cell == "lstm":
                c_next = reference.rnn_cell_forward(*given[2:], cell, False)[1]
            states = given[4], given[5], c_next, given[6]
            made = reference.rnn_cell_backward(*given[:2], activated, *states, cell)
            made = (made[0], made[1] if cell == "gru" else made[0], *made[2:])
            return tuple(
                one for one, operand in zip(made, given[2:], strict=True) if operand is not None
            )

        grads = [
            grad
            for grad, operand in zip(grad_results, saved[2:], strict=True)
            if operand is not None
        ]
        needed = [ctx.needs_input_grad[index] for index in present]
        made = by_reference(gradients, [saved[index] for index in present], needed, *grads)
        by_index = dict(zip(present, made, strict=True))
        return *(by_index.get(index) for index in range(7)), None, None, None, None


def cell(
    name: str,
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor | None,
    weights: Weights,
    how: Regularisation,
    backend: str,
) -> Tensors:
    """h and c after one step, for x of (B, inputs); c has no elements where the cell has none."""
    plain = weights.norm_ih is None and not (how.zoneout_h or how.zoneout_c)
    plain = plain and name != "gru_reset_before" and not how.recurrent_dropout
    if not plain or x.shape[0] == 0:
        _, h, c = rnn.layer(name, x, h, c, weights, None, False, how, backend)
        return h, c
    if backend == "aten" and weights.peephole is None:
        given = weights[:4]
        if name == "lstm":
            return _VF.lstm_cell(x, (h, c), *given)
        one = {"gru": _VF.gru_cell, "rnn_tanh": _VF.rnn_tanh_cell, "rnn_relu": _VF.rnn_relu_cell}
        return one[name](x, h, *given), x.new_empty(0)
    x, h, c, *parameters = rnn.in_autocast(x, h, c, *weights)
    weights = Weights(*parameters)
    gates = linear(x, weights.weight_ih, weights.bias_ih)
    products = linear(h, weights.weight_hh, weights.bias_hh)
    operands = gates, products, h if name == "gru" else None, c, weights.peephole
    if backend == "aten":
        return backends.function("aten", "rnn_cell_forward")(*operands, name, False)[:2]
    if needs_grad(*operands):
        return _Cell.apply(*operands, name, backend)
    return _forward(*operands, name, False, backend)[:2]
