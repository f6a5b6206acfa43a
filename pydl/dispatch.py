"""What ``auto`` chooses, by measurement. Two things are asked, in this order:

- What was measured in this process or, by ``pydl.tune``, on this machine: by exact call
  (:data:`EXACT`, filled by pydl/tuning).
- The table for this kind of machine, which ships with the package (pydl/tables): by layout, dtype,
  pass and size class (:data:`AUTO`). ``bench/tables.py`` writes them from ``bench/results``.

Where neither says anything, PyTorch's own operator serves.
"""

import importlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pydl import layout, plan

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
TABLES = Path(__file__).with_name("tables")
# Of each family that has some, the kinds of calls that are chosen apart.
KINDS = {
    # Served by conv's functions, but not by every backend that has those.
    "conv": ("depthwise", "conv_bias_act", "depthwise_bias_act"),
    # bias_act's functions where no convolution comes first: relu and leaky_relu alone.
    "bias_act": ("activation",),
    # Training with a residual or an activation, and whatever goes by running statistics.
    "batch_norm": ("batch_norm_act", "batch_norm_inference"),
    # Over three axes; norms other than 1 and 2; global averages and pyramids.
    "pool": ("pool3d",),
    "pool_lp": ("pool_lp_any",),
    "pool_adaptive": ("pool_global", "pool_pyramid"),
    # Along an axis that is not innermost in memory, and along rows that stay in registers: other
    # kernels.
    "softmax": ("softmax_columns", "softmax_short_rows"),
    # A loss of logarithms, in which there is nothing for a kernel to fuse.
    "cross_entropy": ("nll_loss",),
    # Padded LSTMs without a projection, for which oneDNN has a fused operator in float32 and
    # bfloat16; layers that PyTorch has no operator for (peepholes, layer norm, a reset before the
    # product, zoneout); sequences of a few steps; one step, each kind of cell by its function.
    "rnn": ("rnn_lstm", "rnn_own", "rnn_short", "rnn_cell"),
}
# Whose input may want no gradient where their weights do.
_WITH_WEIGHTS = frozenset(
    (
        *("conv", "depthwise", "conv_bias_act", "depthwise_bias_act", "local"),
        *("batch_norm", "batch_norm_act"),
        *("rnn", "rnn_lstm", "rnn_own", "rnn_short", "rnn_cell"),
    )
)


@dataclass(frozen=True)
class Row:
    """A measured choice: of calls of one kind, in one dtype, layout and pass, those of at least a
    certain size. The first row that fits is taken."""

    family: str
    dtype: torch.dtype
    backend: str
    evidence: str  # the measurements: file, cases, ratios
    channels_last: bool | None = None  # None: either
    training: bool | None = None  # whether a gradient is wanted; None: either
    function: str | None = None  # of the family's, where they are chosen apart
    unit_stride: bool | None = None  # None: any
    least: int = 0  # elements of the input
    least_plane: int = 0  # elements of one channel of one image

    @property
    def passes(self) -> tuple[bool, ...]:
        """Without gradients, with them, or both."""
        return (False, True) if self.training is None else (self.training,)


def wants_grad(family: str, tensor: torch.Tensor) -> bool:
    """Whether a call is part of training, as far as its input tells."""
    return torch.is_grad_enabled() and (tensor.requires_grad or family in _WITH_WEIGHTS)


def machine(device: torch.device | str = "cpu") -> str:
    """The kind of machine that a table is for: ``cpu-avx512`` (by the instruction set of the CPU
    kernels in use), ``sm_90`` (by compute capability); ``cpu`` or another device type where there
    are no kernels of ours."""
    device = torch.device(device)
    if device.type == "cuda":
        return "sm_{}{}".format(*torch.cuda.get_device_capability(device))
    if device.type != "cpu":
        return device.type
    try:
        isa = importlib.import_module("pydl._C").cpu.isa()
    except (ImportError, AttributeError):
        isa = ""
    return f"cpu-{isa}" if isa else "cpu"


def read(machine: str) -> list[Row]:
    """The rows of the table for this kind of machine; none where there is no table."""
    path = TABLES / f"{machine}.json"
    if not path.is_file():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return [Row(**{**row, "dtype": getattr(torch, row["dtype"])}) for row in rows]


_FAMILY = {kind: family for family, kinds in KINDS.items() for kind in kinds}
# Of each device type and family the rows by dtype, whether a gradient is wanted, and function.
OfFamily = dict[tuple[torch.dtype, bool, str | None], tuple[Row, ...]]
AUTO: dict[tuple[str, str], OfFamily] = {}
# Of each family and dtype the fewest elements that any row asks for, of each family the smallest
# plane: what is below is PyTorch's without further questions.
LEAST: dict[tuple[str, torch.dtype], int] = {}
LEAST_PLANE: dict[str, int] = {}


class Bound(NamedTuple):
    """What a call on a CPU must have for a row to fit it, as far as that is found out at once."""

    least: int  # elements of the input
    channels_last: bool | None
    training: bool  # gradients are enabled


# By dtype the fewest elements of any, and all. What is within none of them is PyTorch's, and takes
# no more questions; so is whatever has none.
Bounds = dict[torch.dtype, tuple[float, frozenset[Bound]]]
NO_BOUNDS = math.inf, frozenset[Bound]()
_BOUNDS: dict[tuple[tuple[str, ...], str | None], Bounds] = {}


# Not by measurement: what PyTorch does not do on a CPU, averages of halves over three axes and, for
# that reason, Lp pooling of halves.
LACKING = [
    Row(family, dtype, "cpu", "PyTorch has no such operator", function=function)
    for family, function in (
        ("pool3d", "avg_pool_forward"),
        ("pool_lp", None),
        ("pool_lp_any", None),
    )
    for dtype in (torch.float16, torch.bfloat16)
]


def use(device: str, rows: Sequence[Row]) -> None:
    """Let ``auto`` go by these rows on this device type."""
    rows = [*rows, *LACKING] if device == "cpu" else rows
    for of_family in [key for key in AUTO if key[0] == device]:
        del AUTO[of_family]
    for row in rows:
        of_calls = AUTO.setdefault((device, row.family), {})
        for training in row.passes:
            call = row.dtype, training, row.function
            of_calls[call] = (*of_calls.get(call, ()), row)
    LEAST.clear()
    LEAST_PLANE.clear()
    for row in used():
        of_dtype = row.family, row.dtype
        LEAST[of_dtype] = min(row.least, LEAST.get(of_dtype, row.least))
        plane = LEAST_PLANE.get(row.family, row.least_plane)
        LEAST_PLANE[row.family] = min(row.least_plane, plane)
    for (kinds, function), bounds in _BOUNDS.items():
        _bound(bounds, kinds, function)
    plan.forget()


def used(device: str | None = None) -> Iterator[Row]:
    """All rows that ``auto`` goes by, on all types of device or one; a row for both passes comes
    twice."""
    for (type, _), of_family in AUTO.items():
        if device in (None, type):
            for of_calls in of_family.values():
                yield from of_calls


def fitting(
    of_family: OfFamily,
    tensor: torch.Tensor,
    training: bool,
    function: str | None,
    unit_stride: bool | None,
) -> Iterator[Row]:
    """The rows that decide on a call with this input; arguments as ``backends.choose``. What takes
    longest to find out is found out last, and once."""
    elements = layout.elements(tensor)
    plane = channels_last = None
    for of in (function, None):
        for row in of_family.get((tensor.dtype, training, of), ()):
            if elements < row.least or row.unit_stride not in (None, unit_stride):
                continue
            if row.least_plane:
                plane = math.prod(tensor.shape[2:]) if plane is None else plane
                if plane < row.least_plane:
                    continue
            if row.channels_last is not None:
                if channels_last is None:
                    channels_last = layout.channels_last(tensor)
                if row.channels_last != channels_last:
                    continue
            yield row


def is_pytorchs(bounds: Bounds, tensor: torch.Tensor) -> bool:
    """Whether a call with this input is within none of the bounds, which under torch.func is for
    others to say."""
    count = tensor.numel()
    least, each = bounds.get(tensor.dtype, NO_BOUNDS)
    if count >= least:
        for bound in each:
            if count < bound.least or (bound.training and not torch.is_grad_enabled()):
                continue
            if bound.channels_last in (None, layout.channels_last(tensor)):
                return False
    return not torch._C._are_functorch_transforms_active()


def bounds(*kinds: str, function: str | None = None) -> Bounds:
    """The bounds of calls of these kinds on a CPU, whatever the table that is in use.

    Args:
        kinds: among which that of a call is; families are kinds as well.
        function: that decides on the call, of those that are decided on apart; if not given, any.
    """
    of_calls = kinds, function
    if of_calls not in _BOUNDS:
        _BOUNDS[of_calls] = {}
        _bound(_BOUNDS[of_calls], *of_calls)
    return _BOUNDS[of_calls]


def bounds_of_family(family: str) -> Bounds:
    """The bounds of all calls of a family."""
    return bounds(family, *KINDS.get(family, ()))


def deciding(family: str, name: str) -> tuple[str, str]:
    """Of the calls of a public function or a layer of this name, their kind and the function that
    decides on them: the pass that makes the result. ``conv`` may be depthwise."""
    name = name.lower()
    if family == "conv":
        return "depthwise", "conv_grad_input" if "transpose" in name else "conv_forward"
    pool = f"{'max' if 'max' in name else 'avg'}_pool_forward"
    if family == "pool_adaptive":
        return family, f"adaptive_{pool}"
    return "pool3d" if "3d" in name else "pool", pool


def _bound(bounds: Bounds, kinds: tuple[str, ...], function: str | None) -> None:
    bounds.clear()
    for row in used("cpu"):
        if row.family in kinds and (function is None or row.function in (None, function)):
            bound = Bound(max(row.least, row.least_plane), row.channels_last, row.training is True)
            least, others = bounds.get(row.dtype, NO_BOUNDS)
            bounds[row.dtype] = min(bound.least, least), others | {bound}


def reload() -> None:
    """Reads the table again: other CPU kernels are in use."""
    use("cpu", read(machine()))


_gpus: set[torch.device] = set()
# What else to do when the first call on a GPU asks (pydl/tuning).
on_gpu: Callable[[torch.device], object] | None = None


def use_gpu(device: torch.device) -> None:
    """Reads the table of a GPU, when the first call on it asks. With several kinds of GPU in one
    machine it is the first one's."""
    if device in _gpus:
        return
    _gpus.add(device)
    if not any(type == "cuda" for type, _ in AUTO):
        use("cuda", read(machine(device)))
    if on_gpu is not None:
        on_gpu(device)


# torch.compile is not to trace what reads files.
vars(use_gpu)["_dynamo_marked_constant"] = True


# Exact calls, by family


class Key(NamedTuple):
    """What decides how long a call takes, in plain values."""

    function: str | None
    unit_stride: bool | None
    training: bool  # whether a gradient is wanted
    autocast: torch.dtype | None
    threads: int  # of the CPU; 0 on another device
    device: torch.device
    dtype: torch.dtype
    shape: torch.Size
    stride: tuple[int, ...]
    arguments: tuple


EXACT: dict[str, dict[Key, str]] = {}
# Of each family, the shapes among them.
_shapes: dict[str, set[torch.Size]] = {}
# Whether to look there: something was measured, or is to be.
exactly = False
# What a call does that is not among them, before it goes on; None: nothing.
on_miss: Callable[[str, torch.Tensor, Key], None] | None = None


def _look(there: bool) -> None:
    """Lets calls be looked for among the exact ones, or not any more."""
    global exactly
    exactly = there
    (plan.awake.add if there else plan.awake.discard)("exact")
    plan.forget()


def watch(do: Callable[[str, torch.Tensor, Key], None] | None) -> None:
    """Lets calls that are not known do this."""
    global on_miss
    on_miss = do
    _look(do is not None or bool(EXACT))


def forget() -> None:
    """Forgets all exact calls."""
    EXACT.clear()
    _shapes.clear()
    _look(on_miss is not None)


def remember(family: str, key: Key, backend: str) -> None:
    """Lets ``auto`` give this call to this backend from now on."""
    EXACT.setdefault(family, {})[key] = backend
    _shapes.setdefault(family, set()).add(key.shape)
    _look(True)


def key(
    family: str,
    tensor: torch.Tensor,
    function: str | None,
    unit_stride: bool | None,
    arguments: tuple,
) -> Key:
    """The key of a call; arguments as ``backends.choose``."""
    device = tensor.device
    return Key(
        function,
        unit_stride,
        wants_grad(family, tensor),
        *_surroundings(device.type),
        device,
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
        arguments,
    )


def may_be_known(family: str, tensor: torch.Tensor) -> bool:
    """Whether a call may be among the exact ones, or is to be measured: in a fifth of the time that
    :func:`exact` takes."""
    return on_miss is not None or tensor.shape in _shapes.get(family, ())


def _surroundings(device: str) -> tuple[torch.dtype | None, int]:
    """The dtype of autocast, and the CPU's threads."""
    autocast = torch.is_autocast_enabled(device)
    return (
        torch.get_autocast_dtype(device) if autocast else None,
        torch.get_num_threads() if device == "cpu" else 0,
    )


# A graph is made for the surroundings that it is traced in: see backends.py, which marks others.
vars(_surroundings)["_dynamo_marked_constant"] = True


def exact(
    family: str,
    tensor: torch.Tensor,
    function: str | None,
    unit_stride: bool | None,
    arguments: tuple,
) -> str | None:
    """Who was measured to be fastest at this very call, if it was measured."""
    of_family = EXACT.get(family)
    if of_family is None and on_miss is None:
        return None
    this = key(family, tensor, function, unit_stride, arguments)
    try:
        answer = None if of_family is None else of_family.get(this)
    except TypeError:  # lists among the arguments
        this = this._replace(arguments=hashable(arguments))
        answer = None if of_family is None else of_family.get(this)
    if answer is None and on_miss is not None and not torch.compiler.is_compiling():
        on_miss(family, tensor, this._replace(arguments=hashable(arguments)))
    return answer


def hashable(value: Any) -> Any:
    """Lists as tuples, which mean the same to every operator."""
    if isinstance(value, (list, tuple)):
        return tuple(map(hashable, value))
    return value


reload()
