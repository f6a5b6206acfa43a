"""Argument checks of the recurrent family."""

import torch

from pydl import rnn_results
from pydl.ops import checks
from pydl.ops.rnn import Regularisation, Weights

# Fewer steps do not repay rearranging weight_hh for them (measured on a CPU, up to 512 units).
_FEW_STEPS = 8

Tensors = tuple[torch.Tensor, ...]


def family(
    cell: str,
    weights: Weights,
    how: Regularisation,
    *,
    steps: int,
    packed: bool = False,
) -> str:
    """What the dispatch table decides on together: what PyTorch has no operator for; sequences too
    short to pack a weight for; padded LSTMs, for which it has a fused operator; the rest."""
    own = cell == "gru_reset_before" or weights.peephole is not None or weights.norm_ih is not None
    own = own or how.zoneout_h > 0 or how.zoneout_c > 0
    if own or (how.recurrent_dropout > 0 and how.training):
        return "rnn_own"
    if steps < _FEW_STEPS:
        return "rnn_short"
    return "rnn_lstm" if fused(cell, weights, packed) else "rnn"


def fused(cell: str, weights: Weights, packed: bool) -> bool:
    """Whether PyTorch has an operator for the layer beside the loop over its steps."""
    return cell == "lstm" and weights.weight_hr is None and not packed


def _probability(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} should be a probability between 0 and 1, got {value}")
    return float(value)


def regularisation(
    zoneout: float | tuple[float, float], recurrent_dropout: float, training: bool, eps: float
) -> Regularisation:
    zoneout_h, zoneout_c = zoneout if isinstance(zoneout, tuple) else (zoneout, zoneout)
    return Regularisation(
        _probability("zoneout", zoneout_h),
        _probability("zoneout", zoneout_c),
        _probability("recurrent_dropout", recurrent_dropout),
        training,
        float(eps),
    )


def rnn_kind(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    return f"rnn_{nonlinearity}"


def cell_input(name: str, input: torch.Tensor) -> None:
    checks.tensor(name, "input", input)
    if input.ndim != 2:
        raise RuntimeError(f"{name}: Expected input to be 2D, got {input.ndim}D instead")


def sequences(name: str, input: torch.Tensor, batch_sizes: torch.Tensor | None) -> None:
    checks.tensor(name, "input", input)
    axes = 3 if batch_sizes is None else 2
    if input.ndim != axes:
        raise RuntimeError(f"{name}: input must have {axes} dimensions, got {input.ndim}")
    if batch_sizes is None:
        if input.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        return
    if (
        batch_sizes.dtype != torch.int64
        or batch_sizes.device.type != "cpu"
        or batch_sizes.ndim != 1
    ):
        raise RuntimeError(f"{name}: batch_sizes should be a vector of int64 on the CPU")
    if torch.compiler.is_compiling():
        return
    sizes = batch_sizes.tolist()
    if not sizes or sizes[-1] < 1 or sizes != sorted(sizes, reverse=True):
        raise RuntimeError(f"{name}: batch_sizes should be positive and never grow, got {sizes}")
    if sum(sizes) != input.shape[0]:
        raise RuntimeError(
            f"{name}: batch_sizes add up to {sum(sizes)}, but input has {input.shape[0]} tokens"
        )


def states(
    name: str,
    cell: str,
    x: torch.Tensor,
    sequences: int,
    hx: torch.Tensor | Tensors | None,
    weights: Weights,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """h and c to start from, zeros where none are given."""
    hidden = weights.weight_hh.shape[0] // rnn_results.GATES[cell]
    sizes = [(sequences, weights.weight_hh.shape[1]), (sequences, hidden)]
    sizes = sizes if cell == "lstm" else sizes[:1]
    given = [None] * len(sizes) if hx is None else hx if cell == "lstm" else (hx,)
    made = []
    for state, size, what in zip(given, sizes, ("hx[0]", "hx[1]"), strict=False):
        if state is None:
            state = x.new_zeros(size)
        elif state.shape != size:
            raise RuntimeError(f"{name}: Expected {what} size {size}, got {list(state.shape)}")
        made.append(state)
    return made[0], made[1] if cell == "lstm" else None


def weights(name: str, cell: str, x: torch.Tensor, given: Weights) -> None:
    """Sizes, devices and dtypes of a layer's parameters."""
    gates = rnn_results.GATES[cell]
    rows, projected = given.weight_hh.shape
    hidden = rows // gates
    sizes = Weights(
        weight_ih=(rows, x.shape[-1]),
        weight_hh=(gates * hidden, hidden if given.weight_hr is None else projected),
        bias_ih=(rows,),
        bias_hh=(rows,),
        weight_hr=(projected, hidden),
        peephole=(3, hidden),
        norm_ih=(rows,),
        norm_hh=(rows,),
        norm_c=(hidden,),
        bias_c=(hidden,),
    )
    for field, tensor, size in zip(Weights._fields, given, sizes, strict=True):
        if tensor is None:
            continue
        if tensor.shape != size:
            raise RuntimeError(f"{name}: Expected {field} size {size}, got {list(tensor.shape)}")
        if torch.is_autocast_enabled(x.device.type):
            continue
        checks.same_device_and_dtype(name, x, field, tensor)
    together = [
        (given.bias_ih, given.bias_hh, "bias_ih and bias_hh"),
        (given.norm_ih, given.norm_hh, "norm_ih and norm_hh"),
        (given.norm_c, given.bias_c, "norm_c and bias_c"),
    ]
    if cell == "lstm":
        together.append((given.norm_ih, given.norm_c, "norm_ih and norm_c"))
    for one, other, names in together:
        if (one is None) != (other is None):
            raise RuntimeError(f"{name}: {names} should be given both or neither")
