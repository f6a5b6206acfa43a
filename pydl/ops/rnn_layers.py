"""Recurrent layers over each other, in one direction or two, by whoever serves them."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import _VF
from torch.compiler import is_compiling
from torch.nn.utils.rnn import PackedSequence

from pydl import backends, functional, plan
from pydl.entry import module_call
from pydl.ops import rnn
from pydl.ops import rnn_checks as checks
from pydl.ops.checks import autocast_dtype
from pydl.ops.rnn import Optional, Regularisation, Tensors, Weights
from pydl.ops.rnn_options import PLAIN, HasWeights, weights_of
from pydl.tuning.when_new import measured_when_new


class Layers(HasWeights, Protocol):
    """A module with the attributes of one of torch.nn, and the backend that must serve it."""

    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    training: bool
    _pydl_backend: str | None


class _Kind(NamedTuple):
    """What a module is, beyond its weights."""

    mode: str
    cell: str
    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    proj_size: int
    batch_first: bool
    dropout: float  # between layers, in training
    peephole: bool
    layer_norm: bool
    how: Regularisation
    backend: str | None

    def is_random(self) -> bool:
        how = self.how
        masks = how.zoneout_h, how.zoneout_c, how.recurrent_dropout
        return self.dropout > 0 or (how.training and any(masks))


@measured_when_new
def forward(
    module: Layers,
    stock: Callable[..., tuple[Any, Any]],
    input: torch.Tensor | PackedSequence,
    hx: torch.Tensor | Tensors | None,
) -> tuple[Any, Any]:
    """The forward of a module that has the attributes of one of torch.nn, whose forward ``stock``
    is: that itself where PyTorch serves."""
    options = module.__dict__.get("_pydl_options", PLAIN)
    mode, training, backend = module.mode, module.training, module._pydl_backend
    cell = mode.lower() if options.reset_after else "gru_reset_before"
    how = options.regularisation(training)
    kind = (
        *(mode, cell, module.input_size, module.hidden_size, module.num_layers),
        *(module.bidirectional, module.proj_size, module.batch_first),
        *(module.dropout if training else 0.0, options.peephole, options.layer_norm),
    )
    directions = ("", "_reverse") if module.bidirectional else ("",)
    weights: list[torch.Tensor | None] = []
    for layer in range(module.num_layers):
        for end in directions:
            weights += weights_of(module, f"_l{layer}{end}", options)
    is_lstm = cell == "lstm"
    states: Any = hx if hx is None or is_lstm else (hx,)
    made: tuple[Any, Tensors] | None
    if isinstance(input, PackedSequence):
        made = _packed(_Kind(*kind, how, backend), input, states, weights)
    elif states is not None and len(states) != 1 + is_lstm:
        made = _padded(_Kind(*kind, how, backend), input, states, weights)
    else:
        first, second = (None, None) if states is None else states if is_lstm else (hx, None)
        given = *kind, *how, backend, input, first, second, *weights
        made = module_call(_plans, given, backend)
    if made is None:
        return stock(module, input, hx)
    y, states = made
    return y, states if is_lstm else states[0]


def _of_plain(*given: Any) -> tuple[torch.Tensor, Tensors] | None:
    """:func:`_padded` with arguments that a plan can tell apart."""
    ends = len(_Kind._fields) - 2
    numbers = ends + len(Regularisation._fields)
    backend, input, h, c, *weights = given[numbers:]
    of: Any = *given[:ends], Regularisation(*given[ends:numbers]), backend
    kind = _Kind(*of)
    if kind.is_random():
        plan.never()
    states = None if h is None else (h,) if c is None else (h, c)
    return _padded(kind, input, states, weights)


_plans = plan.Plans(_of_plain)


def _server(
    family: str, given: str | None, x: torch.Tensor, arguments: tuple, own: bool, fused: bool
) -> tuple[str, bool]:
    """Who serves, and whether that is PyTorch's operator for all layers at once."""
    backend = backends.choose(family, given, x, arguments=arguments)
    low = autocast_dtype(x)
    whole = not own and not rnn.in_graph()
    if low is not None and x.dtype not in (torch.float32, low) and backends.asked(given) == "auto":
        return "aten", whole  # a mixture of dtypes that it knows best
    if backend != "aten" and not backend.startswith("auto"):
        return backend, False
    if backends.transformed():
        return backend, False  # the loop has what those operators have not: vmap, forward mode
    # torch.compile refuses PyTorch's, or unrolls it; the loop goes through as one operator.
    if whole and (not fused or pytorch_serves(x)):
        return backend, True
    if backends.asked(given) == "aten":
        return backend, whole
    # The loop would stand for PyTorch's operator, which was what auto chose.
    if not own and backends.refusal("cpu", family, x) is None:
        backend = "cpu"
    return backend, False


def _choice(kind: _Kind, x: torch.Tensor, steps: int, packed: bool) -> tuple[str, bool] | None:
    """Who serves a call of so many steps, and whether in the dtypes of PyTorch's fused operator;
    None where it is PyTorch's operator for all layers at once."""
    cell, how = kind.cell, kind.how
    fused = cell == "lstm" and not packed and kind.proj_size == 0
    own = checks.own(cell, kind.peephole, kind.layer_norm, how)
    family = checks.family(own, fused, steps)
    how_large = (
        *(cell, kind.hidden_size, kind.num_layers, kind.bidirectional, kind.proj_size),
        *(packed, kind.batch_first, kind.dropout > 0),
    )
    backend, whole = _server(family, kind.backend, x, how_large, own, fused)
    return None if whole else (backend, fused and not own)


def _packed(
    kind: _Kind, input: PackedSequence, states: Tensors | None, weights: list[Optional]
) -> tuple[PackedSequence, Tensors] | None:
    x, batch_sizes, order, back = input
    choice = _choice(kind, x, len(batch_sizes), packed=True)
    if choice is None:
        return None
    if not is_compiling():
        checks.sequences(kind.mode, x, batch_sizes)
    if states is not None and order is not None:
        states = tuple(state.index_select(1, order) for state in states)
    sequences = len(order) if order is not None else int(batch_sizes[0])
    y, states = _layers(kind, x, batch_sizes, sequences, states, weights, *choice)
    if back is not None:
        states = tuple(state.index_select(1, back) for state in states)
    return PackedSequence(y, batch_sizes, order, back), states


def _padded(
    kind: _Kind, input: torch.Tensor, states: Tensors | None, weights: list[Optional]
) -> tuple[torch.Tensor, Tensors] | None:
    rank = input.dim()
    if rank not in (2, 3):
        return None  # torch.nn's says so
    batched = rank == 3
    steps = input.size(1 if kind.batch_first and batched else 0)
    choice = _choice(kind, input, steps, packed=False)
    if choice is None:
        return None
    if states is not None:
        checks.state_ranks(states, batched)
        states = states if batched else tuple(state.unsqueeze(1) for state in states)
    x = input if batched else input.unsqueeze(1)
    if batched and kind.batch_first:
        x = x.transpose(0, 1)
    y, states = _layers(kind, x, None, x.shape[1], states, weights, *choice)
    if not batched:
        return y.squeeze(1), tuple(state.squeeze(1) for state in states)
    return y.transpose(0, 1) if kind.batch_first else y, states


def _layers(
    kind: _Kind,
    x: torch.Tensor,
    batch_sizes: torch.Tensor | None,
    sequences: int,
    states: Tensors | None,
    weights: list[Optional],
    backend: str,
    fused: bool,
) -> tuple[torch.Tensor, Tensors]:
    """x is (T, B, inputs), or (S, inputs) where it is packed; the states are (layers times
    directions, B, ...); the weights those of one direction of one layer after the other."""
    cell, directions = kind.cell, 2 if kind.bidirectional else 1
    count = kind.num_layers * directions
    each = len(weights) // count
    of = [Weights(*weights[first : first + each]) for first in range(0, len(weights), each)]
    checks.layer_input(x, batch_sizes, kind.input_size, of[0].weight_ih)
    sizes = (kind.proj_size or kind.hidden_size, kind.hidden_size)[: 2 if cell == "lstm" else 1]
    firsts: Sequence[Sequence[torch.Tensor]]
    if states is None:  # the same for all
        firsts = count * [[x.new_zeros((sequences, size)) for size in sizes]]
    else:
        checks.layer_states(x, states, [(count, sequences, size) for size in sizes])
        firsts = [[state[place] for state in states] for place in range(count)]
    steps = x.shape[:-1]
    x = x.flatten(0, -2)
    ends: list[Tensors] = []
    for layer in range(kind.num_layers):
        if layer > 0 and kind.dropout > 0:
            x = functional.dropout(x, kind.dropout, True, backend="auto")
        done = []
        for direction in range(directions):
            place = layer * directions + direction
            h, c = (*firsts[place], None)[:2]
            checks.weights(kind.mode, cell, x, of[place])
            args = of[place], batch_sizes, direction == 1, kind.how, backend, fused
            y, *last = rnn.layer(cell, x, h, c, *args)
            done.append(y)
            ends.append(tuple(last))
        x = rnn.joined(*done, axis=1)
    y = x.view(*steps, x.shape[1])
    y = y if backend == "aten" else rnn.given_away(y)
    return y, tuple(_stacked(*(end[which] for end in ends)) for which in range(len(sizes)))


def _stacked(*tensors: torch.Tensor) -> torch.Tensor:
    return plan.step(_stack, *tensors)


def _stack(*tensors: torch.Tensor) -> torch.Tensor:
    return torch.stack(tensors)


def pytorch_serves(x: torch.Tensor) -> bool:
    """Whether PyTorch's fused LSTM takes this input on this processor: it goes to oneDNN's by the
    dtype before autocast, and that has none in halves for some processors, or one without a
    gradient."""
    if x.dtype == torch.float32 and not torch._C._is_any_autocast_enabled():
        return True
    if x.device.type != "cpu":
        return True
    low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    if low is None and x.dtype not in (torch.float16, torch.bfloat16):
        return True
    return _serves_lstm(x.dtype, low, torch.is_grad_enabled(), torch.backends.mkldnn.enabled)


@functools.cache
def _serves_lstm(
    dtype: torch.dtype, low: torch.dtype | None, wants_grad: bool, mkldnn: bool
) -> bool:
    """Found out by a call of the smallest size."""

    def call() -> bool:
        with (
            torch.set_grad_enabled(wants_grad),
            torch.autocast("cpu", low, enabled=low is not None),
        ):
            x = torch.zeros(1, 1, 1, dtype=dtype, requires_grad=wants_grad)
            weights = [torch.zeros(4, 1, dtype=dtype, requires_grad=wants_grad)] * 2
            state = torch.zeros(1, 1, 1, dtype=dtype)
            try:
                y, *_ = _VF.lstm(x, (state, state), weights, False, 1, 0.0, False, False, False)
                if wants_grad:
                    torch.autograd.grad(y.sum(), x)
            except RuntimeError:
                return False
        return True

    # In a thread of its own, where the modes and transforms that the caller is under do not reach.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()
