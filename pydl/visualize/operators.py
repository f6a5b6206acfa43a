"""The layers of a network, each on what it is given there: held to the float64 reference, timed in
turns with PyTorch's."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from pydl.measure import Action, Times, interleave, settled
from pydl.models.calls import Check, served
from pydl.models.record import Ran, watch
from pydl.nn.layer import Layer
from pydl.visualize.trial import Trial

ACTIVATIONS = nn.ReLU, nn.LeakyReLU  # one operation per number
PASSES = {"forward": "forward", "both": "forward + backward"}
EVEN = 1.05  # ratios from 1 / EVEN to EVEN are no difference that a few samples show


def verdict(ratio: float, backend: str) -> str:
    """``win`` or ``lose``, or ``even`` where there is no difference, or where PyTorch's own
    operator serves and was not slowed down."""
    if ratio < 1 / EVEN:
        return "lose"
    return "win" if ratio > EVEN and backend != "aten" else "even"


@dataclass(frozen=True)
class OperatorRow:
    """One layer: who serves it, how exact it is, how long it takes."""

    layer: str
    input: tuple[int, ...]
    backends: Mapping[str, str]  # by pass: "aten" is PyTorch's own operator; several by commas
    checks: Sequence[Check]
    times: Mapping[str, Mapping[str, Times]]  # by pass, then "ours" and "theirs"

    @property
    def passed(self) -> bool:
        """Whether the output and every gradient is within its bound."""
        return all(row.passed for row in self.checks)

    def ratio(self, kind: str) -> float:
        """How many times faster than PyTorch, by the medians."""
        return self.times[kind]["theirs"].median / self.times[kind]["ours"].median

    def verdict(self, kind: str) -> str:
        """As :func:`verdict` has it."""
        return verdict(self.ratio(kind), self.backends[kind])


def examine(
    model: nn.Module, x: torch.Tensor, *names: str, seconds: float = 0.5, seed: int = 0
) -> list[OperatorRow]:
    """Check, then time, layers of ``pydl.nn`` in ``model`` on what they are given when it runs on
    ``x``, the same layer on the same shapes once.

    Args:
        model: any model, in the mode that it is in; the backend in use serves ours. It is run once
            and not changed but for what it counts.
        x: its input.
        names: of the layers; without any, all of ``pydl.nn`` but activations.
        seconds: how long to measure each pass of each layer.
        seed: of the output gradients, which are drawn from N(0, 1).

    Raises:
        ValueError: a name is no layer's.
        RuntimeError: PyTorch has no operator for a layer (regions of interest).
    """
    taken: dict[str, tuple[nn.Module, dict[str, Any]]] = {}

    def take(ran: Ran) -> None:
        given = inspect.signature(ran.layer.forward).bind(*ran.inputs, **ran.named).arguments
        # A later layer may work in place.
        copied = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        taken[ran.key] = ran.layer, copied

    def meant(name: str, layer: nn.Module) -> bool:
        return isinstance(layer, Layer) and not isinstance(layer, ACTIVATIONS)

    with watch(model, *(names or (meant,)), before=take), torch.enable_grad():
        model(x)
    generator = torch.Generator(x.device).manual_seed(seed)
    rows: dict[tuple, OperatorRow] = {}
    with settled():
        for name, (layer, given) in taken.items():
            trial = Trial.of(layer, given)
            if trial.call not in rows:
                rows[trial.call] = _examined(name, trial, seconds, generator)
    return list(rows.values())


def _examined(name: str, trial: Trial, seconds: float, generator: torch.Generator) -> OperatorRow:
    y = trial.output(trial.theirs)
    grad = torch.empty_like(y).normal_(generator=generator)
    checks = trial.check(grad)
    first = trial.input
    times, backends = {}, {}
    for kind in PASSES:
        ours = trial.runner(kind, trial.ours, grad)
        backends[kind] = _serving(ours)
        actions = {"ours": ours, "theirs": trial.runner(kind, trial.theirs, grad)}
        times[kind] = interleave(actions, device=first.device, seconds=seconds)
    return OperatorRow(name, tuple(first.shape), backends, checks, times)


def _serving(action: Action) -> str:
    with served() as seen:
        action()
    return ", ".join(sorted(seen)) or "aten"


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


def right(rows: Sequence[OperatorRow], console: Console) -> bool:
    """Whether all are within their bounds; says which are not."""
    wrong = [row.layer for row in rows if not row.passed]
    if wrong:
        console.print(
            f"[bold red]The operators of {', '.join(wrong)} deviate from the reference.[/]"
        )
    return not wrong


_COLOURS = {"win": "[bold blue]", "lose": "[bold yellow]", "even": "[dim]"}


def listed(rows: Sequence[OperatorRow], title: str) -> Table:
    """The rows as a table for a terminal."""
    table = Table("layer", "input", "backend", "float64", title=title, title_justify="left")
    for name in PASSES.values():
        table.add_column(name.replace("+ ", "+\n"), justify="right")
    for row in rows:
        mark = "[green]within[/]" if row.passed else "[bold red]outside[/]"
        ratios = [f"{_COLOURS[row.verdict(kind)]}{row.ratio(kind):.2f}x[/]" for kind in PASSES]
        named = {name for some in row.backends.values() for name in some.split(", ")}
        backend = ", ".join(sorted(named, reverse=True))
        shape = "x".join(map(str, row.input))
        table.add_row(row.layer, shape, backend, mark if row.checks else "", *ratios)
    return table
