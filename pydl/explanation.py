"""Where the time of a model goes, layer by layer, who serves each, and by which measurement."""

import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from pydl import backends, fusion
from pydl.fusion import steps
from pydl.measure import Action, interleave, settled
from pydl.models.calls import choosing, served
from pydl.models.record import Ran, evaluating, watch
from pydl.models.stock import as_torch
from pydl.swap import Report, report, restore

_GAP = "  "


@dataclass(frozen=True)
class Row:
    """One call of a layer, or of several that are computed together.

    Attributes:
        name: of the layer, or what is computed together: ``conv1 + bn1 + relu``.
        kind: the class of the layer, or of the first of them.
        shape: of the input.
        server: the backend that computes it; ``aten`` is PyTorch's own operator.
        evidence: the measurement by which that was chosen; empty where there is none.
        ours: seconds of a call.
        pytorch: seconds of the same layers of torch.nn.
        share: ``ours`` as a part of what all layers take.
        left: why accelerate has left the layer alone; empty where it has not.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    server: str
    evidence: str
    ours: float
    pytorch: float
    share: float = 0.0
    left: str = ""


@dataclass(frozen=True)
class Explained:
    """What :func:`explain` found; prints as a table.

    Attributes:
        rows: in the order in which the layers run.
        ours, pytorch: seconds of a call of the whole model and of the same of torch.nn's layers.
        unfused: modules whose forward cannot be followed to compute layers together, and why.
    """

    rows: list[Row]
    ours: float
    pytorch: float
    unfused: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        head = "layer", "kind", "input", "by", "ours, us", "PyTorch, us", "ratio", "share"
        lines = [head]
        for row in self.rows:
            times = f"{1e6 * row.ours:.1f}", f"{1e6 * row.pytorch:.1f}"
            ratio, share = f"{row.pytorch / row.ours:.2f}", f"{100 * row.share:.1f} %"
            shape = "x".join(map(str, row.shape))
            lines.append((row.name, row.kind, shape, row.server, *times, ratio, share))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        said = [
            _GAP.join(
                cell.ljust(width) if i < 4 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        whys = "why", *(row.left or row.evidence for row in self.rows)
        said = [f"{line}{_GAP}{why}".rstrip() for line, why in zip(said, whys, strict=True)]
        of_layers = sum(row.ours for row in self.rows)
        said.append(
            f"The model takes {1e6 * self.ours:.1f} us, made of torch.nn's layers "
            f"{1e6 * self.pytorch:.1f} us: {self.pytorch / self.ours:.2f}x. The layers alone, one "
            f"by one, take {1e6 * of_layers:.1f} us of it."
        )
        said += [f"{name or '(model)'}: not fused, {why}" for name, why in self.unfused]
        return "\n".join(said)


@dataclass
class _Call:
    name: str
    kind: str
    shape: tuple[int, ...]
    ours: Action
    theirs: Action
    left: str = ""


def explain(model: nn.Module, *inputs: Any, seconds: float = 0.05) -> Explained:
    """Run a model in evaluation, and say of each of its layers who serves it, by which
    measurement, how long it takes here and with PyTorch's own, and what was left alone and why.

    The model is taken as it is: after :func:`pydl.accelerate`, with layers computed together where
    it was fused, or as it was written. Each layer is timed by itself on what it is given there, in
    turns with the same layer of torch.nn, without gradients, its memory in the caches if it fits;
    the whole model too, in turns with one of torch.nn's layers, the same parameters in both. What
    a ``forward`` does outside of layers is in no row.

    Args:
        model: any module; its mode and parameters are as before afterwards.
        inputs: what it is called with.
        seconds: how long to measure each layer, roughly.

    Raises:
        TypeError: ``model`` is no module.
        Exception: whatever the model raises.

    >>> layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    >>> model = pydl.accelerate(torch.nn.Sequential(*layers), fuse=True)
    >>> found = pydl.explain(model, torch.randn(1, 3, 12, 10), seconds=0.001)
    >>> [(row.name, row.kind, row.server) for row in found.rows]
    [('0 + 1 + 2', 'Conv2d', 'aten')]
    """
    found = report(model)
    stock = restore(as_torch(model)).eval()
    device = next((one.device for one in inputs if isinstance(one, torch.Tensor)), "cpu")
    with evaluating(model), torch.no_grad(), settled():
        rows = [_row(call, seconds, device) for call in _calls(model, stock, inputs, found)]
        whole = interleave(
            {"ours": lambda: model(*inputs), "pytorch": lambda: stock(*inputs)},
            device=device,
            seconds=10 * seconds,
            rounds=(5, 400),
        )
    every = sum(row.ours for row in rows)
    rows = [Row(**{**vars(row), "share": row.ours / every}) for row in rows]
    times = {who: time.minimum for who, time in whole.items()}
    return Explained(rows, times["ours"], times["pytorch"], found.unfused)


def _calls(model: nn.Module, stock: nn.Module, inputs: tuple, reported: Report) -> list[_Call]:
    """The calls of layers, and of several at once, that a run of the model makes."""
    names = {module: name for name, module in model.named_modules()}
    twins = dict(stock.named_modules())
    left = {name: why for name, _, why in reported.left}
    parts = fusion.parts(model)
    found: list[_Call] = []

    def meant(name: str, layer: nn.Module) -> bool:
        return layer not in parts and not any(layer.children())

    def take(ran: Ran) -> None:
        kept, named = copy.deepcopy((ran.inputs, ran.named))
        ours, theirs = (partial(one, *kept, **named) for one in (ran.layer, twins[ran.name]))
        first = next((one for one in kept if isinstance(one, torch.Tensor)), None)
        shape = () if first is None else tuple(first.shape)
        kind, why = type(ran.layer).__name__, left.get(ran.name, "")
        found.append(_Call(ran.key, kind, shape, ours, theirs, why))

    def see(step: steps.Step, given: tuple) -> None:
        layers = [one for one in given if isinstance(one, nn.Module)]
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        said = [names[one] for one in layers] + ["residual"] * (len(tensors) > 1)
        said += [given[-2]] * (given[-2] != "none")
        kept = tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in given)
        stocks = tuple(twins[names[one]] if isinstance(one, nn.Module) else one for one in kept)
        ours = partial(step, *kept)
        theirs = partial(steps.one_by_one(step), *stocks)
        kind = type(layers[0]).__name__
        found.append(_Call(" + ".join(said), kind, tuple(given[0].shape), ours, theirs))

    with watch(model, meant, before=take), steps.seen_by(see):
        model(*inputs)
    return found


def _row(call: _Call, seconds: float, device: torch.device | str) -> Row:
    """Who serves a call, and how long it takes."""
    evidence: list[str] = []

    def see(answer: str, kind: str, tensor: torch.Tensor, rest: tuple) -> None:
        if answer != "aten":
            row = backends.measured(kind, tensor, *rest)
            by_table = row is not None and row.backend == answer
            evidence.append(row.evidence if by_table and row else "measured on this machine")

    with choosing(see), served() as servers:
        call.ours()
    actions = {"ours": call.ours, "theirs": call.theirs}
    times = interleave(actions, device=device, seconds=seconds, rounds=(5, 400))
    return Row(
        *(call.name, call.kind, call.shape, ", ".join(sorted(servers)) or "aten"),
        *("; ".join(dict.fromkeys(evidence)), times["ours"].minimum, times["theirs"].minimum),
        left=call.left,
    )
