"""Recurrent layers over each other, in one direction or two, by whoever serves them."""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import torch
from torch import _VF
from torch.compiler import is_compiling
from torch.nn.utils.rnn import PackedSequence

from pydl import backends, dispatch, functional
from pydl.ops import rnn
from pydl.ops import rnn_checks as checks
from pydl.ops.checks import autocast_dtype
from pydl.ops.rnn import Regularisation, Tensors
from pydl.ops.rnn_options import PLAIN, HasWeights, Options, weights_of
from pydl.tuning.when_new import measured_when_new

# What runs the layers: x, batch_sizes, the number of sequences and the states they start from.
Run = Callable[
    [torch.Tensor, torch.Tensor | None, int, Tensors | None], tuple[torch.Tensor, Tensors]
]


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


@measured_when_new
def forward(
    module: Layers,
    stock: Callable[..., tuple[Any, Any]],
    input: torch.Tensor | PackedSequence,
    hx: torch.Tensor | Tensors | None,
) -> tuple[Any, Any]:
    """The forward of a module that has the attributes of one of torch.nn, whose forward ``stock``
    is: that itself where PyTorch serves."""
    if _small(module, input):
        return stock(module, input, hx)
    if isinstance(input, PackedSequence):
        x, packed, steps = input.data, True, len(input.batch_sizes)
    else:
        x, packed, rank = input, False, input.dim()
        if rank not in (2, 3):
            return stock(module, input, hx)  # which says so
        steps = x.size(1 if module.batch_first and rank == 3 else 0)
    options = module.__dict__.get("_pydl_options", PLAIN)
    cell = module.mode.lower() if options.reset_after else "gru_reset_before"
    fused = cell == "lstm" and not packed and module.proj_size == 0
    own, how = False, None
    if options is not PLAIN:
        how = options.regularisation(module.training)
        own = checks.own(cell, options.peephole, options.layer_norm, how)
    family = checks.family(own, fused, steps)
    how_large = (
        *(cell, module.hidden_size, module.num_layers, module.bidirectional, module.proj_size),
        *(packed, module.batch_first, module.training and module.dropout > 0),
    )
    backend, whole = _server(family, module._pydl_backend, x, how_large, own, fused)
    if whole:
        return stock(module, input, hx)
    how = how or options.regularisation(module.training)

    def run(x, batch_sizes, sequences, states):  # annotations would be computed at each call
        given = x, batch_sizes, sequences, states
        y, states = _layers(module, *given, cell, options, how, backend, fused and not own)
        return (rnn.given_away(y) if backend != "aten" else y), states

    is_lstm = cell == "lstm"
    given: Any = hx if hx is None or is_lstm else (hx,)
    y: torch.Tensor | PackedSequence
    if isinstance(input, PackedSequence):
        y, states = _packed(module, input, given, run)
    else:
        y, states = _padded(module, input, given, run)
    return y, states if is_lstm else states[0]


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


def _small(module: Layers, input: torch.Tensor | PackedSequence) -> bool:
    """Whether it is PyTorch's without further questions, which would be a tenth of the time: a
    plain layer, an input too small to gain, and nothing that asks for more or watches."""
    return (
        type(input) is torch.Tensor
        and input.dtype == torch.float32
        and input.numel() < dispatch.least_recurrent
        and input.is_cpu
        and not dispatch.exactly
        and "_pydl_options" not in module.__dict__
        and backends.asked(module._pydl_backend) == "auto"
        and not (is_compiling() or torch._C._is_any_autocast_enabled() or backends.transformed())
    )


def _packed(
    module: Layers, input: PackedSequence, states: Tensors | None, run: Run
) -> tuple[PackedSequence, Tensors]:
    x, batch_sizes, order, back = input
    if not is_compiling():
        checks.sequences(module.mode, x, batch_sizes)
    if states is not None and order is not None:
        states = tuple(state.index_select(1, order) for state in states)
    sequences = len(order) if order is not None else int(batch_sizes[0])
    y, states = run(x, batch_sizes, sequences, states)
    if back is not None:
        states = tuple(state.index_select(1, back) for state in states)
    return PackedSequence(y, batch_sizes, order, back), states


def _padded(
    module: Layers, input: torch.Tensor, states: Tensors | None, run: Run
) -> tuple[torch.Tensor, Tensors]:
    batched = input.dim() == 3
    if states is not None:
        checks.state_ranks(states, batched)
        states = states if batched else tuple(state.unsqueeze(1) for state in states)
    if not batched:
        x = input.unsqueeze(1)
    else:
        x = input.transpose(0, 1) if module.batch_first else input
    y, states = run(x, None, x.shape[1], states)
    if not batched:
        return y.squeeze(1), tuple(state.squeeze(1) for state in states)
    return y.transpose(0, 1) if module.batch_first else y, states


def _layers(
    module: Layers,
    x: torch.Tensor,
    batch_sizes: torch.Tensor | None,
    sequences: int,
    states: Tensors | None,
    cell: str,
    options: Options,
    how: Regularisation,
    backend: str,
    fused: bool,
) -> tuple[torch.Tensor, Tensors]:
    """x is (T, B, inputs), or (S, inputs) where it is packed; the states are (layers times
    directions, B, ...)."""
    directions = 2 if module.bidirectional else 1
    suffixes = [
        [f"_l{layer}", f"_l{layer}_reverse"][:directions] for layer in range(module.num_layers)
    ]
    weights = [[weights_of(module, suffix, options) for suffix in pair] for pair in suffixes]
    checks.layer_input(x, batch_sizes, module.input_size, weights[0][0].weight_ih)
    sizes = (module.proj_size or module.hidden_size, module.hidden_size)
    shapes = [
        (module.num_layers * directions, sequences, size)
        for size in (sizes if cell == "lstm" else sizes[:1])
    ]
    if states is None:
        states = tuple(x.new_zeros(shape) for shape in shapes)
    checks.layer_states(x, states, shapes)
    steps = x.shape[:-1]
    x = x.flatten(0, -2)
    ends: list[Tensors] = []
    for layer in range(module.num_layers):
        if layer > 0 and module.dropout > 0 and module.training:
            x = functional.dropout(x, module.dropout, True, backend="auto")
        done = []
        for direction in range(directions):
            first = [state[layer * directions + direction] for state in states]
            h, c = first if len(first) == 2 else [*first, None]
            checks.weights(module.mode, cell, x, weights[layer][direction])
            args = weights[layer][direction], batch_sizes, direction == 1, how, backend, fused
            y, *last = rnn.layer(cell, x, h, c, *args)
            done.append(y)
            ends.append(tuple(last))
        x = done[0] if directions == 1 else torch.cat(done, 1)
    states = tuple(torch.stack([end[which] for end in ends]) for which in range(len(states)))
    return x.view(*steps, x.shape[1]), states


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
