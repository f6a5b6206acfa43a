"""The operators that a network calls, held to the float64 reference, timed against PyTorch's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.table import Table
from torch import nn

from pydl.measure import Times, copier, interleave
from pydl.models.calls import Call, Check, check, served
from pydl.models.layer_calls import layer_calls
from pydl.models.record import Ran, watch
from pydl.nn.layer import Layer

ACTIVATIONS = nn.ReLU, nn.LeakyReLU  # one operation per number
PASSES = {"forward": "forward", "both": "forward + backward"}


@dataclass(frozen=True)
class OperatorRow:
    """One layer's call: who served it, how exact it is, how long it takes."""

    layer: str
    call: Call
    backend: str
    checks: list[Check]
    times: dict[str, dict[str, Times]]  # by pass, then "ours", "theirs", "copy"

    @property
    def passed(self) -> bool:
        """Whether the output and every gradient is within its bound."""
        return all(row.passed for row in self.checks)

    def ratio(self, kind: str) -> float:
        """How many times faster than PyTorch, by the medians."""
        return self.times[kind]["theirs"].median / self.times[kind]["ours"].median

    def copies(self, kind: str) -> float:
        """The time in units of one copy of the input, by the medians."""
        return self.times[kind]["ours"].median / self.times[kind]["copy"].median


def examine(
    model: nn.Module, images: torch.Tensor, *, seconds: float = 0.5, seed: int = 0
) -> list[OperatorRow]:
    """Check, then time, each distinct call that the layers of ``pydl.nn`` in ``model``, activations
    apart, make for these images.

    Args:
        model: any model; the backend in use serves ours.
        images: a batch of its input.
        seconds: how long to measure each pass of each call.
        seed: of the output gradients, which are drawn from N(0, 1).
    """
    rows: list[OperatorRow] = []
    generator = torch.Generator(images.device).manual_seed(seed)
    for layer, (call, tensors) in layer_calls(model, images, skip=ACTIVATIONS).items():
        if any(call == row.call for row in rows):
            continue
        y = call.theirs(tensors)
        grad = torch.empty_like(y).normal_(generator=generator)
        with served() as backends:
            call.results(call.ours, tensors, grad)
        checks = check(call, tensors, grad)
        times = {}
        for kind in PASSES:
            actions = {
                "ours": call.runner(kind, call.ours, tensors, grad),
                "theirs": call.runner(kind, call.theirs, tensors, grad),
                "copy": copier(tensors[0]),
            }
            times[kind] = interleave(actions, device=images.device, seconds=seconds)
        rows.append(OperatorRow(layer, call, ", ".join(sorted(backends)) or "aten", checks, times))
    return rows


def servers(model: nn.Module, x: torch.Tensor) -> dict[str, str]:
    """Who serves the layers of ``pydl.nn`` when ``model`` runs on ``x``, as observed: by a layer's
    name the backend, or several joined by commas."""
    found: dict[str, str] = {}

    def before(ran: Ran) -> None:
        seen.clear()

    def after(ran: Ran) -> None:
        found[ran.key] = ", ".join(sorted(seen)) or "aten"

    with (
        served() as seen,
        watch(model, lambda name, layer: isinstance(layer, Layer), before=before, after=after),
    ):
        model(x)
    return found


@dataclass(frozen=True)
class Share:
    """Layers of one kind that one backend serves: how many, and their part of a run's time."""

    kind: str
    backend: str
    layers: int
    part: float


def shares(model: nn.Module, x: torch.Tensor) -> list[Share]:
    """Where the time of a run of ``model`` on ``x`` goes, the longest first: kinds of layers, by
    who serves them (``torch.nn`` where that is no layer of this package). What is called outside of
    layers has no part in it. Of the quickest of three runs."""
    with torch.no_grad():
        served_by = servers(model, x)  # and the first run, which is slower
        best = min((_timed(model, x) for _ in range(3)), key=lambda took: sum(took.values()))
    found: dict[tuple[str, str], list[float]] = {}
    for (key, kind), seconds in best.items():
        found.setdefault((kind, served_by.get(key, "torch.nn")), []).append(seconds)
    whole = sum(best.values())
    rows = [Share(*which, len(each), sum(each) / whole) for which, each in found.items()]
    return sorted(rows, key=lambda row: -row.part)


def _timed(model: nn.Module, x: torch.Tensor) -> dict[tuple[str, str], float]:
    """Seconds of each layer, by its name and kind."""
    began: list[float] = []
    took: dict[tuple[str, str], float] = {}

    def before(ran: Ran) -> None:
        began.append(_now(x.device))

    def after(ran: Ran) -> None:
        took[ran.key, type(ran.layer).__name__] = _now(x.device) - began.pop()

    with watch(model, before=before, after=after):
        model(x)
    return took


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def listed(rows: Sequence[OperatorRow]) -> Table:
    """The rows as a table for a terminal."""
    table = Table(
        "layer",
        "input",
        "backend",
        "float64",
        title="Checked, and times as fast as PyTorch",
        title_justify="left",
    )
    for name in PASSES.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        mark = "[green]within[/]" if row.passed else "[bold red]outside[/]"
        ratios = [f"{row.ratio(kind):.2f}x" for kind in PASSES]
        table.add_row(row.layer, "x".join(map(str, row.call.input)), row.backend, mark, *ratios)
    return table
