"""What the operators of a family ask of :func:`pydl.backends.choose`, seen by calling them.

Which kind of its family a call belongs to, and for which function and stride it asks, only the
operator knows; so it is called as a user calls it, and stopped when it has asked.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pydl import backends, functional
from pydl.contract.rnn import GATES
from pydl.dispatch import Row
from pydl.models.calls import choosing

# How a call may differ besides its input, and the command line's defaults.
OPTIONS: dict[str, Any] = {"stride": 1, "dim": -1, "cell": "lstm"}


@dataclass(frozen=True)
class Family:
    """What is called by one word on the command line."""

    shape: str  # the axes of the input, in words
    axes: tuple[int, ...]  # how many there may be
    calls: Mapping[str, Callable[..., object]]  # by the operator's name, of the input and options
    options: tuple[str, ...] = ()  # of OPTIONS
    questions: int = 1  # that one call asks


@dataclass(frozen=True)
class Question:
    """One question of an operator, and the answer it got."""

    operator: str
    kind: str
    function: str | None
    tensor: torch.Tensor
    answer: str
    row: Row | None  # of the dispatch table, that decided it


class _Answered(Exception):
    """All was asked; nothing is to be computed."""


def asked(family: str, x: torch.Tensor, **options: object) -> list[Question]:
    """What the operators of a family ask for the input ``x`` under ``auto``.

    Args:
        options: of :data:`OPTIONS`, those that the family has.
    """
    row = FAMILIES[family]
    options = {name: options.get(name, OPTIONS[name]) for name in row.options}
    found: list[Question] = []
    for operator, call in row.calls.items():
        seen: list[Question] = []

        def see(answer, kind, tensor, rest, seen=seen, operator=operator):
            measured = backends.measured(kind, tensor, *rest)
            seen.append(Question(operator, kind, rest[0], tensor, answer, measured))
            if len(seen) == row.questions:
                raise _Answered

        with contextlib.suppress(_Answered), choosing(see):
            call(x, **options)
        found += seen
    return found


def served(layer: torch.nn.Module, shape: tuple[int, ...], device: str = "cpu") -> str:
    """Who serves a layer of ``pydl.nn`` for an input of this shape under ``auto``, in evaluation.

    Args:
        layer: in evaluation mode; its weights may be on the ``meta`` device.
    """
    seen: list[str] = []

    def see(answer: str, *rest: object) -> None:
        seen.append(answer)
        raise _Answered

    held = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    weights = {
        name: torch.empty(one.shape, dtype=one.dtype, device=device) for name, one in held.items()
    }
    x = torch.empty(shape, device=device)
    auto = backends.use_backend("auto")  # whatever the environment says
    with contextlib.suppress(_Answered), choosing(see), auto, torch.no_grad():
        torch.func.functional_call(layer, weights, (x,))
    return seen[0] if seen else "aten"  # its own straight away


def _call(name: str, *arguments: object, **named: object) -> Callable[[torch.Tensor], object]:
    """An operator that takes inputs of any number of axes."""
    return lambda x: getattr(functional, name)(x, *arguments, **named, backend="auto")


def _per_axes(name: str, *arguments: object) -> Callable[[torch.Tensor], object]:
    """An operator whose name ends in the number of spatial axes."""
    return lambda x: getattr(functional, f"{name}{x.ndim - 2}d")(x, *arguments, backend="auto")


def _drawn(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """Weights for x."""
    return torch.randn(sizes, dtype=x.dtype, device=x.device) / max(sizes[1], 1) ** 0.5


def _conv(x: torch.Tensor, stride: int = 1, depthwise: bool = False) -> object:
    channels = x.shape[1]
    weight = _drawn(x, channels, 1 if depthwise else channels, *[3] * (x.ndim - 2))
    conv = getattr(functional, f"conv{x.ndim - 2}d")
    return conv(
        x, weight, stride=stride, padding=1, groups=channels if depthwise else 1, backend="auto"
    )


def _conv_bias_act(x: torch.Tensor) -> object:
    weight = _drawn(x, x.shape[1], x.shape[1], 1, 1)
    return functional.conv2d_bias_act(x, weight, backend="auto")


def _depthwise_bias_act(x: torch.Tensor) -> object:
    weight = _drawn(x, x.shape[1], 1, 3, 3)
    return functional.conv2d_bias_act(x, weight, padding=1, groups=x.shape[1], backend="auto")


def _local(x: torch.Tensor) -> object:
    spatial = x.shape[2:]
    weight = _drawn(x, x.shape[1], x.shape[1], *[1] * len(spatial), *spatial)
    run = getattr(functional, f"locally_connected{len(spatial)}d")
    return run(x, weight, backend="auto")


def _batch_norm_inference(x: torch.Tensor) -> object:
    statistics = x.new_zeros(x.shape[1]), x.new_ones(x.shape[1])
    return functional.batch_norm(x, *statistics, backend="auto")


def _max_unpool(x: torch.Tensor) -> object:
    indices = torch.zeros_like(x, dtype=torch.int64)
    return getattr(functional, f"max_unpool{x.ndim - 2}d")(x, indices, 2, backend="auto")


def _softmax(x: torch.Tensor, dim: int) -> object:
    x.size(dim)  # raises where there is no such axis
    return functional.softmax(x, dim, backend="auto")


def _loss(name: str) -> Callable[[torch.Tensor], object]:
    def call(x: torch.Tensor) -> object:
        target = x.new_zeros(x.shape[0], *x.shape[2:], dtype=torch.int64)
        return getattr(functional, name)(x, target, backend="auto")

    return call


def _recurrent(x: torch.Tensor, cell: str, zoneout: float = 0.0) -> object:
    gates, hidden = GATES[cell], x.shape[2]
    weights = _drawn(x, gates * hidden, hidden), _drawn(x, gates * hidden, hidden)
    name, named = _CELLS[cell]
    return getattr(functional, name)(x, *weights, zoneout=zoneout, **named, backend="auto")


def _cell(x: torch.Tensor, cell: str) -> object:
    gates, hidden = GATES[cell], x.shape[1]
    weights = _drawn(x, gates * hidden, hidden), _drawn(x, gates * hidden, hidden)
    name, named = _CELLS[cell]
    state = (x, x) if cell == "lstm" else x
    return getattr(functional, f"{name}_cell")(x, state, *weights, **named, backend="auto")


# Of each cell, the function's name and the argument that tells it from others of that name.
_CELLS: dict[str, tuple[str, dict[str, object]]] = {
    "rnn_tanh": ("rnn", {"nonlinearity": "tanh"}),
    "rnn_relu": ("rnn", {"nonlinearity": "relu"}),
    "lstm": ("lstm", {}),
    "gru": ("gru", {"reset_after": True}),
    "gru_reset_before": ("gru", {"reset_after": False}),
}

_MAP = "images x channels x one to three axes"
_MAP2 = "images x channels x one or two axes"
_IMAGE = "images x channels x height x width"
_ANY = "of any axes"
_CLASSES = "samples x classes x up to three axes"
_SEQUENCES = "steps x sequences x hidden units"


def _maps(**calls: Callable[..., object]) -> Family:
    return Family(_MAP, (3, 4, 5), calls)


FAMILIES: dict[str, Family] = {
    "conv": _maps(conv=_conv),
    "depthwise": Family(
        _MAP,
        (3, 4, 5),
        {"conv": lambda x, stride: _conv(x, stride, depthwise=True)},
        options=("stride",),
        questions=3,
    ),
    "conv_bias_act": Family(_IMAGE, (4,), {"conv2d_bias_act": _conv_bias_act}),
    "depthwise_bias_act": Family(_IMAGE, (4,), {"conv2d_bias_act": _depthwise_bias_act}),
    "local": Family(_MAP2, (3, 4), {"locally_connected": _local}),
    "activation": Family(_ANY, tuple(range(1, 9)), {"relu": _call("relu")}),
    "batch_norm": Family(
        "images x channels x up to three axes",
        (2, 3, 4, 5),
        {"batch_norm": _call("batch_norm", None, None, training=True)},
    ),
    "batch_norm_act": Family(
        "images x channels x up to three axes",
        (2, 3, 4, 5),
        {"batch_norm_act": _call("batch_norm_act", None, None, training=True)},
    ),
    "batch_norm_inference": Family(
        "images x channels x up to three axes", (2, 3, 4, 5), {"batch_norm": _batch_norm_inference}
    ),
    "pool": _maps(max_pool=_per_axes("max_pool", 2), avg_pool=_per_axes("avg_pool", 2)),
    "pool_lp": _maps(lp_pool=_per_axes("lp_pool", 2, 2)),
    "pool_lp_any": _maps(lp_pool=_per_axes("lp_pool", 3, 2)),
    "pool_adaptive": _maps(
        adaptive_avg_pool=_per_axes("adaptive_avg_pool", 2),
        adaptive_max_pool=_per_axes("adaptive_max_pool", 2),
    ),
    "pool_global": _maps(adaptive_avg_pool=_per_axes("adaptive_avg_pool", 1)),
    "pool_pyramid": Family(
        _IMAGE, (4,), {"spatial_pyramid_pool": _call("spatial_pyramid_pool", (1, 2))}
    ),
    "unpool": _maps(max_unpool=_max_unpool),
    "roi": Family(
        _IMAGE,
        (4,),
        {
            name: lambda x, name=name: _call(name, x.new_zeros(1, 5), 7)(x)
            for name in ("roi_align", "roi_pool")
        },
    ),
    "nms": Family(
        "boxes x coordinates",
        (2,),
        {"nms": lambda x: _call("nms", x.new_empty(len(x)), 0.5)(x)},
    ),
    "lrn": _maps(local_response_norm=_call("local_response_norm", 5)),
    "spatial_norm": _maps(spatial_response_norm=_call("spatial_response_norm", 3)),
    "softmax": Family(
        _ANY,
        tuple(range(1, 9)),
        {"softmax": _softmax},
        options=("dim",),
    ),
    "cross_entropy": Family(_CLASSES, (2, 3, 4, 5), {"cross_entropy": _loss("cross_entropy")}),
    "nll_loss": Family(_CLASSES, (2, 3, 4, 5), {"nll_loss": _loss("nll_loss")}),
    "dropout": Family(_ANY, tuple(range(1, 9)), {"dropout": _call("dropout")}),
    "rnn": Family(_SEQUENCES, (3,), {"layer": _recurrent}, options=("cell",)),
    "rnn_own": Family(
        _SEQUENCES,
        (3,),
        {"layer with zoneout": lambda x, cell: _recurrent(x, cell, zoneout=0.1)},
        options=("cell",),
    ),
    "rnn_cell": Family("sequences x hidden units", (2,), {"cell": _cell}, options=("cell",)),
}
