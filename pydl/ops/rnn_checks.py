"""Argument checks of the recurrent family."""

from collections.abc import Sequence

import torch

from pydl.contract.rnn import GATES
from pydl.ops import checks
from pydl.ops.rnn import Regularisation, Weights
from pydl.shapes import expect, packed, weight_sizes

# Fewer steps do not repay rearranging weight_hh for them (measured on a CPU, up to 512 units).
_FEW_STEPS = 8

Tensors = tuple[torch.Tensor, ...]


def own(cell: str, peephole: bool, norm: bool, how: Regularisation) -> bool:
    """Whether PyTorch has no operator for a layer."""
    if cell == "gru_reset_before" or peephole or norm or how.zoneout_h > 0 or how.zoneout_c > 0:
        return True
    return how.recurrent_dropout > 0 and how.training


def family(own: bool, fused: bool, steps: int) -> str:
    """What the dispatch table decides on together: what PyTorch has no operator for; sequences too
    short to pack a weight for; padded LSTMs, for which it has a ``fused`` operator; the rest."""
    if own:
        return "rnn_own"
    if steps < _FEW_STEPS:
        return "rnn_short"
    return "rnn_lstm" if fused else "rnn"


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


def options(zoneout: float | tuple[float, float], recurrent_dropout: float = 0.0) -> dict:
    """What a module keeps of them."""
    how = regularisation(zoneout, recurrent_dropout, False, 0.0)
    return {"zoneout": how[:2], "recurrent_dropout": how.recurrent_dropout}


def rnn_kind(nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
    return f"rnn_{nonlinearity}"


def no_projection(given: dict[str, object]) -> None:
    """Refuses keywords that the constructor does not name, as torch.nn's does."""
    if "proj_size" in given:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    for name in given:
        raise TypeError(f"RNNBase.__init__() got an unexpected keyword argument {name!r}")


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
    packed(name, batch_sizes.tolist(), input.shape[0])


def layer_input(
    x: torch.Tensor, batch_sizes: torch.Tensor | None, inputs: int, weight: torch.Tensor
) -> None:
    """What torch.nn's layers say of an input."""
    if x.dtype != weight.dtype and checks.autocast_dtype(x) is None:
        raise ValueError(
            f"RNN input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). "
            f"Convert input: input.to({weight.dtype}), or convert model: model.to({x.dtype})"
        )
    axes = 3 if batch_sizes is None else 2
    if x.dim() != axes:
        raise RuntimeError(f"input must have {axes} dimensions, got {x.dim()}")
    if x.shape[-1] != inputs:
        raise RuntimeError(
            f"input.size(-1) must be equal to input_size. Expected {inputs}, got {x.shape[-1]}"
        )
    if batch_sizes is None and x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")


def state_ranks(states: Tensors, batched: bool) -> None:
    """What they say of states whose number of axes is not the input's."""
    rank, kind = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
    if all(state.dim() == rank for state in states):
        return
    given = f"{states[0].dim()}-D tensor"
    if len(states) == 2:
        given = f"({states[0].dim()}-D, {states[1].dim()}-D) tensors"
    what = "hx and cx" if len(states) == 2 else "hx"
    raise RuntimeError(f"For {kind} input, {what} should also be {rank}-D but got {given}")


def layer_states(x: torch.Tensor, states: Tensors, shapes: Sequence[tuple[int, ...]]) -> None:
    """What they and PyTorch's operators say of states."""
    for state, shape, which in zip(states, shapes, ("[0]", "[1]"), strict=False):
        if state.shape != shape:
            which = f" hidden{which} size" if len(shapes) == 2 else " hidden size"
            raise RuntimeError(f"Expected{which} {shape}, got {list(state.shape)}")
    same_kind(x, states)


def same_kind(x: torch.Tensor, states: Sequence[torch.Tensor]) -> None:
    """The device and dtype of states. Autocast takes any mixture of those that it casts."""
    for state in states:
        if state.device != x.device:
            raise RuntimeError(
                "Input and hidden tensors are not at the same device, found input tensor at "
                f"{x.device} and hidden tensor at {state.device}"
            )
        if state.dtype == x.dtype:
            continue
        if checks.autocast_dtype(x) is None or torch.float64 in (x.dtype, state.dtype):
            raise RuntimeError(
                "Input and hidden tensors are not the same dtype, found input tensor with "
                f"{_SCALAR_TYPES.get(x.dtype, x.dtype)} and hidden tensor with "
                f"{_SCALAR_TYPES.get(state.dtype, state.dtype)}"
            )


# As PyTorch's C++ calls them.
_SCALAR_TYPES = {
    torch.float32: "Float",
    torch.float64: "Double",
    torch.float16: "Half",
    torch.bfloat16: "BFloat16",
}


def cell_ranks(name: str, input: torch.Tensor, states: Tensors | None) -> None:
    """What torch.nn's cells say of numbers of axes."""
    if input.dim() not in (1, 2):
        raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
    for index, state in enumerate(states or ()):
        if state.dim() not in (1, 2):
            what = f"hx[{index}]" if len(states) == 2 else "hidden"
            raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {state.dim()}D instead")


def cell_operands(x: torch.Tensor, states: Tensors, weights: Weights) -> None:
    """What PyTorch's operators say of a cell's sizes."""
    inputs, hidden = weights.weight_ih.shape[1], weights.weight_hh.shape[1]
    if x.shape[1] != inputs:
        raise RuntimeError(f"input has inconsistent input_size: got {x.shape[1]} expected {inputs}")
    for index, state in enumerate(states):
        if state.shape[0] != x.shape[0]:
            raise RuntimeError(
                f"Input batch size {x.shape[0]} doesn't match hidden{index} batch size "
                f"{state.shape[0]}"
            )
        if state.shape[1] != hidden:
            raise RuntimeError(
                f"hidden{index} has inconsistent hidden_size: got {state.shape[1]}, expected "
                f"{hidden}"
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
    hidden = weights.weight_hh.shape[0] // GATES[cell]
    sizes = [(sequences, weights.weight_hh.shape[1]), (sequences, hidden)]
    sizes = sizes if cell == "lstm" else sizes[:1]
    given = [None] * len(sizes) if hx is None else hx if cell == "lstm" else (hx,)
    made = []
    for state, size, what in zip(given, sizes, ("hx[0]", "hx[1]"), strict=False):
        if state is None:
            state = x.new_zeros(size)
        else:
            expect(name, what, state, size)
        made.append(state)
    same_kind(x, made)
    return made[0], made[1] if cell == "lstm" else None


def weights(name: str, cell: str, x: torch.Tensor, given: Weights) -> None:
    """Sizes, devices and dtypes of a layer's parameters."""
    sizes = weight_sizes(GATES[cell], x.shape[-1], given.weight_hh, given.weight_hr is not None)
    casts = checks.autocast_dtype(x) is not None
    for (field, size), tensor in zip(sizes.items(), given, strict=True):
        if tensor is None:
            continue
        expect(name, field, tensor, size)
        if casts and tensor.device == x.device:
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
