"""One step of a recurrent network: both products by PyTorch, all behind them one operator."""

from typing import Any, Protocol, overload

import torch
from torch import _VF
from torch.nn.functional import linear

from pydl import backends, plan
from pydl.contract.call import Pair
from pydl.contract.rnn import RnnCellBackward, RnnCellForward
from pydl.entry import module_call
from pydl.ops import rnn
from pydl.ops import rnn_checks as checks
from pydl.ops.checks import autocast_dtype
from pydl.ops.derivatives import Function, apply, by_reference, needs_grad, recorded, save
from pydl.ops.registry import operator
from pydl.ops.rnn import Regularisation, Tensors, Weights
from pydl.ops.rnn_options import PLAIN, HasWeights, weights_of
from pydl.reference import rnn_cell as reference
from pydl.tuning.when_new import measured_when_new

_forward = operator(RnnCellForward)
_backward = operator(RnnCellBackward)


_RESET_BEFORE = "gru_reset_before"


class _Cell(Function):
    """h and c after the step, and the activated gates."""

    @staticmethod
    def forward(gates, products, h, c, peephole, cell, backend):
        return _forward(gates, products, h, c, peephole, cell, True, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, cell, backend = inputs
        _, c_next, activated = output
        ctx.mark_non_differentiable(activated, *(() if cell == "lstm" else (c_next,)))
        save(ctx, output, *operands, activated, c_next)
        ctx.how = cell, backend
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_h, grad_c, _):
        gates, products, h, c, peephole, *kept = ctx.saved_tensors
        cell = ctx.how[0]
        grad_c = grad_c if cell == "lstm" else None
        operands = gates, products, h, c, peephole
        made = iter(apply(_CellGrad, grad_h, grad_c, *operands, *kept, *ctx.how))
        for_gates = next(made)
        grads = (
            for_gates,
            next(made) if cell == "gru" else for_gates,
            *(None if operand is None else next(made) for operand in operands[2:]),
        )
        needed = zip(grads, ctx.needs_input_grad, strict=False)
        return *(grad if need else None for grad, need in needed), None, None


class _CellGrad(Function):
    """The gradients of gates, of products where they differ, and of those of h, c and peephole that
    are there."""

    @staticmethod
    def forward(grad_h, grad_c, gates, products, h, c, peephole, activated, c_next, cell, backend):
        states = h, c, c_next if cell == "lstm" else None
        made = _backward(grad_h, grad_c, activated, *states, peephole, cell, backend)
        return _present(made, h, c, peephole, cell)

    @staticmethod
    def setup_context(ctx, inputs, output):
        save(ctx, output, *inputs[:7])
        ctx.cell = inputs[-2]

    @staticmethod
    def backward(ctx, *grad_results):
        saved, cell = ctx.saved_tensors, ctx.cell
        present = [index for index, tensor in enumerate(saved) if tensor is not None]

        def gradients(*tensors):
            given = [None] * len(saved)
            for index, tensor in zip(present, tensors, strict=True):
                given[index] = tensor
            _, c_next, activated = reference.rnn_cell_forward(
                RnnCellForward(*given[2:], cell, True)
            )
            states = *given[4:6], c_next if cell == "lstm" else None, given[6]
            made = reference.rnn_cell_backward(
                RnnCellBackward(*given[:2], activated, *states, cell)
            )
            return _present(made, *given[4:], cell)

        needed = [ctx.needs_input_grad[index] for index in present]
        tensors = [saved[index] for index in present]
        made = dict(
            zip(present, by_reference(gradients, tensors, needed, *grad_results), strict=True)
        )
        return *(made.get(index) for index in range(7)), None, None, None, None


class _Step(Function):
    """:class:`_Cell` from before both products, of which autograd is then not told one by one."""

    @staticmethod
    def forward(x, weight_ih, bias_ih, h, weight_hh, bias_hh, c, peephole, cell, backend):
        gates, products = _products(x, weight_ih, bias_ih, h, weight_hh, bias_hh)
        state = h if cell == "gru" else None
        return _forward(gates, products, state, c, peephole, cell, True, backend)

    setup_context = staticmethod(_Cell.setup_context)

    @staticmethod
    def backward(ctx, grad_h, grad_c, _):
        *operands, activated, c_next = ctx.saved_tensors
        x, weight_ih, _, h, weight_hh, _, c, peephole = operands
        cell, wants = ctx.how[0], ctx.needs_input_grad
        state, grad_c = h if cell == "gru" else None, grad_c if cell == "lstm" else None
        # Only a derivative of this would look at them.
        both = _products(*operands[:6]) if recorded() else (None, None)
        given = grad_h, grad_c, *both, state, c, peephole, activated, c_next
        made = iter(apply(_CellGrad, *given, *ctx.how))
        for_gates = next(made)
        for_products = next(made) if cell == "gru" else for_gates
        grads = [None] * 8
        if wants[0]:
            grads[0] = plan.step(torch.mm, for_gates, weight_ih)
        if cell == "gru":
            grads[3] = plan.step(torch.addmm, next(made), for_products, weight_hh)
        elif wants[3]:
            grads[3] = plan.step(torch.mm, for_products, weight_hh)
        for place, part, rows in ((1, for_gates, x), (4, for_products, h)):
            if wants[place]:
                grads[place] = rnn.along(part, rows)
            if wants[place + 1]:
                grads[place + 1] = plan.step(torch.sum, part, 0)
        for place in (6, 7):
            if operands[place] is not None:
                grads[place] = next(made)
        needed = zip(grads, wants, strict=False)
        return *(grad if need else None for grad, need in needed), None, None


def _products(x, weight_ih, bias_ih, h, weight_hh, bias_hh) -> Pair:
    return plan.step(linear, x, weight_ih, bias_ih), plan.step(linear, h, weight_hh, bias_hh)


def _present(made: Tensors, h, c, peephole, cell: str) -> Tensors:
    """Of a backward's results those that are an operand's gradient."""
    for_gates, for_products, for_h, for_c, for_peephole = made
    return (
        for_gates,
        *((for_products,) if cell == "gru" else ()),
        *((for_h,) if h is not None else ()),
        *((for_c,) if c is not None else ()),
        *((for_peephole.to(peephole.dtype),) if peephole is not None else ()),
    )


class Cell(HasWeights, Protocol):
    """A module with the attributes of one of torch.nn, and the backend that must serve it."""

    hidden_size: int
    training: bool
    _pydl_backend: str | None


@overload
def forward(
    module: Cell, stock: type[torch.nn.LSTMCell], input: torch.Tensor, hx: Pair | None
) -> Pair: ...
@overload
def forward(
    module: Cell,
    stock: type[torch.nn.RNNCell] | type[torch.nn.GRUCell],
    input: torch.Tensor,
    hx: torch.Tensor | None,
) -> torch.Tensor: ...
@measured_when_new
def forward(
    module: Cell,
    stock: type[torch.nn.RNNCellBase],
    input: torch.Tensor,
    hx: Any,
) -> torch.Tensor | Pair:
    """The forward of a module that has the attributes of the class ``stock`` of torch.nn: that
    one's where PyTorch serves."""
    options = module.__dict__.get("_pydl_options", PLAIN)
    name, backend, h, c = stock.__name__, module._pydl_backend, hx, None
    if name == "RNNCell":
        kind = checks.rnn_kind(module.nonlinearity)  # type: ignore[attr-defined]  # this one's
    elif name == "LSTMCell":
        kind = "lstm"
        h, c = (None, None) if hx is None else (hx[0], hx[1])
    else:
        kind = "gru" if options.reset_after else _RESET_BEFORE
    given: tuple[Any, ...] = name, kind, module.hidden_size, backend, input, h, c
    given += (*weights_of(module, "", options),)
    if options is not PLAIN:
        # Which some modules, made without a constructor, do not have.
        given += options.regularisation(any(options.zoneout) and module.training)
    states = module_call(_plans, given, backend)
    if states is None:
        return stock.forward(module, input, hx)
    return states if kind == "lstm" else states[0]


def _step(
    name: str,
    kind: str,
    hidden: int,
    backend: str | None,
    input: torch.Tensor,
    h: torch.Tensor | None,
    c: torch.Tensor | None,
    *rest: Any,
) -> Tensors | None:
    """h and, of an LSTM, c after one step of a module of this name; None where it is PyTorch's.

    Args:
        rest: the module's weights, ten of them and the regularisation where it has options.
    """
    function = f"{name.removesuffix('Cell').lower()}_cell"
    backend = backends.choose("rnn_cell", backend, input, function, arguments=(name, hidden))
    plain = len(rest) <= 4
    if backend == "aten" and plain and not backends.transformed():
        return None
    weights, how = Weights(*rest[:10]), Regularisation(*rest[10:])
    given: Tensors | None = None if h is None else (h,) if c is None else (h, c)
    checks.cell_ranks(name, input, given)
    batched = input.dim() == 2
    x = input if batched else input.unsqueeze(0)
    if given is None:
        zeros = x.shape[0], hidden
        given = tuple(x.new_zeros(zeros) for _ in range(2 if kind == "lstm" else 1))
    elif not batched:
        given = tuple(state.unsqueeze(0) for state in given)
    checks.cell_operands(x, given, weights)
    checks.weights(name, kind, x, weights)
    checks.same_kind(x, given[:1])
    lstm = kind == "lstm"
    h, c = cell(kind, x, given[0], given[1] if lstm else None, weights, how, backend)
    states = (h, c) if lstm else (h,)
    return states if batched else tuple(state.squeeze(0) for state in states)


_plans = plan.Plans(_step)


def cell(
    name: str,
    x: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor | None,
    weights: Weights,
    how: Regularisation,
    backend: str,
) -> Pair:
    """h and c after one step, for x of (B, inputs); c has no elements where the cell has none."""
    plain = weights.norm_ih is None and not (how.zoneout_h or how.zoneout_c)
    if not plain or name == _RESET_BEFORE:
        _, h, c = rnn.layer(name, x, h, c, weights, None, False, how, backend)
        return h, rnn.given_away(c)
    if h.numel() == 0:
        backend = "aten"  # there is nothing for a kernel to do
    # PyTorch's cells have no vmap, what they are made of has.
    if backend == "aten" and weights.peephole is None and not backends.transformed():
        own = weights[:4]
        if name == "lstm":
            return _VF.lstm_cell(x, (h, c), *own)
        one = {"gru": _VF.gru_cell, "rnn_tanh": _VF.rnn_tanh_cell, "rnn_relu": _VF.rnn_relu_cell}
        return one[name](x, h, *own), x.new_empty(0)
    of_products = x, weights.weight_ih, weights.bias_ih, h, weights.weight_hh, weights.bias_hh
    others = c, weights.peephole
    alike = autocast_dtype(x) is None and all(t is None or t.dtype == x.dtype for t in (h, c))
    if backend != "aten" and alike and needs_grad(*of_products, *others):
        h, c, _ = _Step.apply(*of_products, *others, name, backend)
        return h, rnn.given_away(c) if name == "lstm" else c
    gates, products = _products(*of_products)
    dtype = rnn.state_dtype(gates.dtype, h if c is None else c, name)
    given = gates, products, h if name == "gru" else None, c, weights.peephole
    operands = [t if t is None or t.dtype == dtype else t.to(dtype) for t in given]
    if backend == "aten":
        h, c, _ = backends.function("aten", "rnn_cell_forward")(*operands, name, False)
        return h, rnn.given_away(c)
    if needs_grad(*operands):
        h, c, _ = _Cell.apply(*operands, name, backend)
        return h, rnn.given_away(c) if name == "lstm" else c
    return _forward(*operands, name, False, backend)[:2]
