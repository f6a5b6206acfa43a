"""Recurrent layers and cells, their weights given."""

import torch

from pydl import backends
from pydl.functional.overridable import overridable
from pydl.ops import rnn as ops
from pydl.ops import rnn_cell as ops_cell
from pydl.ops import rnn_checks as checks
from pydl.ops.rnn import Regularisation, Weights

Pair = tuple[torch.Tensor, torch.Tensor]


@overridable
def lstm(
    input: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    hx: Pair | None = None,
    *,
    weight_hr: torch.Tensor | None = None,
    peephole: torch.Tensor | None = None,
    norm_ih: torch.Tensor | None = None,
    norm_hh: torch.Tensor | None = None,
    norm_c: torch.Tensor | None = None,
    bias_c: torch.Tensor | None = None,
    zoneout: float | tuple[float, float] = 0.0,
    recurrent_dropout: float = 0.0,
    training: bool = False,
    eps: float = 1e-5,
    batch_sizes: torch.Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> tuple[torch.Tensor, Pair]:
    """One layer of LSTM in one direction over whole sequences.

    Equivalent to: :class:`torch.nn.LSTM`, and at each step, where they are given, ``peephole``:
    ``i = sigmoid(i + c * peephole[0])``, f likewise, and o with the new c; ``norm_ih``:
    ``layer_norm(x @ weight_ih.T, [4 * H], norm_ih)`` for the product; ``zoneout`` in evaluation:
    ``h = zoneout * h_old + (1 - zoneout) * h``.

    Args:
        input: (T, B, inputs), or with ``batch_sizes`` packed tokens (S, inputs); float32, float64,
            float16 or bfloat16.
        weight_ih, weight_hh, bias_ih, bias_hh: (4 H, inputs), (4 H, P), (4 H,), (4 H,), gates in
            PyTorch's order i f g o; P is H, or the projection's size.
        hx: h and c to start from, (B, P) and (B, H); zeros where it is None.
        weight_hr: (P, H), the projection of h (Sak et al. 2014).
        peephole: (3, H): what i and f see of the old c and o of the new (Gers et al. 2002).
        norm_ih, norm_hh: (4 H,), the gains of layer norm of the two products, each before its bias
            is added (Ba et al. 2016); with them norm_c and bias_c, (H,), of c on its way to h.
        zoneout: the probability that a unit keeps its old state, one for h and c or two (Krueger et
            al. 2017); their expectation where not ``training``.
        recurrent_dropout: of h before its product, one mask for all steps (Gal and Ghahramani
            2016); while ``training``.
        batch_sizes: (T,), int64, on the CPU: how many sequences reach each step, as in
            :class:`torch.nn.utils.rnn.PackedSequence`.
        reverse: from each sequence's last step to its first.
        backend: see the module.

    Returns:
        The outputs, as the input with P features, and the last h and c of each sequence.

    Raises:
        RuntimeError: sizes, dtypes or devices do not fit.
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000; PyTorch's ``nn.LSTM``.
    """
    weights = Weights(
        *(weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole),
        *(norm_ih, norm_hh, norm_c, bias_c),
    )
    how = checks.regularisation(zoneout, recurrent_dropout, training, eps)
    y, h, c = _layer("lstm", input, hx, weights, batch_sizes, reverse, how, backend)
    return y, (h, c)


@overridable
def gru(
    input: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    hx: torch.Tensor | None = None,
    *,
    reset_after: bool = True,
    norm_ih: torch.Tensor | None = None,
    norm_hh: torch.Tensor | None = None,
    zoneout: float = 0.0,
    recurrent_dropout: float = 0.0,
    training: bool = False,
    eps: float = 1e-5,
    batch_sizes: torch.Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Pair:
    """One layer of GRU in one direction over whole sequences: gates in PyTorch's order r z n, and
    h' = (1 - z) n + z h.

    Equivalent to: :class:`torch.nn.GRU`, and at each step with ``reset_after=False``:
    ``n = tanh(x @ W_in.T + b_in + (r * h) @ W_hn.T + b_hn)``.

    Args:
        weight_ih, weight_hh, bias_ih, bias_hh: (3 H, inputs), (3 H, H), (3 H,), (3 H,).
        hx: h to start from, (B, H).
        reset_after: r times the product of h, as PyTorch and cuDNN have it; False: the product of r
            times h, as Cho et al. 2014, ONNX and textbooks do. Weights of one do not
            fit the other.
        norm_ih, norm_hh: (3 H,); r and z are normalised together, n apart.

    The other arguments, results and errors are :func:`lstm`'s.

    Source: Cho et al. 2014; PyTorch's ``nn.GRU``.
    """
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh, norm_ih=norm_ih, norm_hh=norm_hh)
    how = checks.regularisation(zoneout, recurrent_dropout, training, eps)
    kind = "gru" if reset_after else "gru_reset_before"
    return _layer(kind, input, hx, weights, batch_sizes, reverse, how, backend)[:2]


@overridable
def rnn(
    input: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    hx: torch.Tensor | None = None,
    *,
    nonlinearity: str = "tanh",
    norm_ih: torch.Tensor | None = None,
    norm_hh: torch.Tensor | None = None,
    zoneout: float = 0.0,
    recurrent_dropout: float = 0.0,
    training: bool = False,
    eps: float = 1e-5,
    batch_sizes: torch.Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Pair:
    """One layer of Elman's network in one direction over whole sequences.

    Args:
        weight_ih, weight_hh, bias_ih, bias_hh: (H, inputs), (H, H), (H,), (H,).
        hx: h to start from, (B, H).
        nonlinearity: ``tanh`` or ``relu``.

    The other arguments, results and errors are :func:`lstm`'s.

    Source: Elman 1990; PyTorch's ``nn.RNN``.
    """
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh, norm_ih=norm_ih, norm_hh=norm_hh)
    how = checks.regularisation(zoneout, recurrent_dropout, training, eps)
    kind = checks.rnn_kind(nonlinearity)
    return _layer(kind, input, hx, weights, batch_sizes, reverse, how, backend)[:2]


def _layer(cell, input, hx, weights, batch_sizes, reverse, how, backend):
    name = cell.partition("_")[0]
    checks.sequences(name, input, batch_sizes)
    packed = batch_sizes is not None
    steps = len(batch_sizes) if packed else len(input)
    fused = cell == "lstm" and weights.weight_hr is None and not packed
    own = checks.own(cell, weights.peephole is not None, weights.norm_ih is not None, how)
    kind = checks.family(own, fused, steps)
    arguments = cell, weights.weight_hh.shape, packed, reverse
    backend = backends.choose(kind, backend, input, arguments=arguments)
    tokens = input.flatten(0, -2)
    sequences = int(batch_sizes[0]) if packed else input.shape[1]
    h, c = checks.states(name, cell, tokens, sequences, hx, weights)
    checks.weights(name, cell, tokens, weights)
    given = h, c, weights, batch_sizes, reverse, how, backend, fused and not own
    y, h, c = ops.layer(cell, tokens, *given)
    y = y if backend == "aten" else ops.given_away(y)
    return y.view(*input.shape[:-1], y.shape[1]), h, c


@overridable
def lstm_cell(
    input: torch.Tensor,
    hx: Pair,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    *,
    peephole: torch.Tensor | None = None,
    backend: str | None = None,
) -> Pair:
    """One step of :func:`lstm`: h and c, (B, H), after an input (B, inputs)."""
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh, peephole=peephole)
    return _cell("lstm", input, hx, weights, backend)


@overridable
def gru_cell(
    input: torch.Tensor,
    hx: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    *,
    reset_after: bool = True,
    backend: str | None = None,
) -> torch.Tensor:
    """One step of :func:`gru`: h, (B, H), after an input (B, inputs)."""
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    return _cell("gru" if reset_after else "gru_reset_before", input, hx, weights, backend)[0]


@overridable
def rnn_cell(
    input: torch.Tensor,
    hx: torch.Tensor,
    weight_ih: torch.Tensor,
    weight_hh: torch.Tensor,
    bias_ih: torch.Tensor | None = None,
    bias_hh: torch.Tensor | None = None,
    *,
    nonlinearity: str = "tanh",
    backend: str | None = None,
) -> torch.Tensor:
    """One step of :func:`rnn`: h, (B, H), after an input (B, inputs)."""
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    return _cell(checks.rnn_kind(nonlinearity), input, hx, weights, backend)[0]


def _cell(cell, input, hx, weights, backend):
    name = f"{cell.partition('_')[0]}_cell"
    checks.cell_input(name, input)
    arguments = cell, weights.weight_hh.shape
    backend = backends.choose("rnn_cell", backend, input, name, arguments=arguments)
    h, c = checks.states(name, cell, input, input.shape[0], hx, weights)
    checks.weights(name, cell, input, weights)
    return ops_cell.cell(cell, input, h, c, weights, Regularisation(), backend)
