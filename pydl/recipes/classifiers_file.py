"""What the recipe ``classifiers`` found, in two files: a row a network, and the losses of every
step."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from pydl.train.log import renew

BASELINE = "logistic regression"  # which every network has to beat
TARGET = 0.97  # of the held-out images, ours and the twin's
FIRST = 5  # steps in which the losses of both are held to those of the twin in float64
# How many times as far from them ours may be as the twin's, which are off by rounding: it decides
# which of two nearly equal pixels a pool takes, and where a whole gradient goes. Of two distances
# that are as large on average, one is by chance 4 times the other in a step of six, 8 times in one
# of thirteen (the ratio of two normal variables is a Cauchy variable); a wrong layer is off by
# thousands.
FACTOR = 8
# What counts as a twin's distance where it is less, a few roundings.
LEAST = 16 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Row:
    """One network beside its twin, the same made of torch.nn's layers, which trained alike."""

    network: str
    pixels: int  # height and width of the images
    epochs: int
    steps: int
    seed: int
    backend: str  # asked for, for ours
    accuracy: float  # of the held-out images, after the last epoch
    accuracy_twin: float
    accuracy_baseline: float
    error: float  # of the first losses, the largest, relative to those in float64
    error_twin: float
    times: float  # as far off as the twin's, in the worst of these steps
    seconds: float  # of the processor, the whole training with its evaluations
    seconds_twin: float
    step_ms: float  # the median of a step's time, with one thread the processor's
    step_ms_twin: float
    samples: int  # of each
    load: float  # of the machine in that minute: processes that ran or waited to
    share: float  # of the step's time, in this package's kernels
    served: str  # by family: its share, and in brackets its calls
    facts: Mapping[str, str] = field(default_factory=dict)  # device, date, versions

    @property
    def ratio(self) -> float:
        """How many times as fast as its twin a step is."""
        return self.step_ms_twin / self.step_ms

    @property
    def alike(self) -> bool:
        """Whether both began with the same curve."""
        return self.times <= FACTOR

    @property
    def shown(self) -> bool:
        """Whether this is evidence that the network learns from real input (level D)."""
        least = min(self.accuracy, self.accuracy_twin)
        return self.alike and least >= TARGET and self.accuracy > self.accuracy_baseline


@dataclass(frozen=True)
class Curves:
    """The loss of each step's batch, before the step."""

    ours: tuple[float, ...]
    twin: tuple[float, ...]


def errors(losses: Sequence[float], exact: Sequence[float]) -> list[float]:
    """The relative distances of the first losses from the exact ones."""
    return [abs(one - truth) / truth for one, truth in zip(losses, exact, strict=False)]


def times(ours: Sequence[float], twins: Sequence[float]) -> float:
    """How many times the errors of the twin ours are, in the worst step; the twin's are its largest
    so far."""
    return max(one / max(LEAST, *twins[:step]) for step, one in enumerate(ours, 1))


class File:
    """Rows and curves by network, in ``classifiers.csv`` and ``classifiers-curves.csv``.

    Args:
        folder: where the files are, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "classifiers.csv"
        self._curves = folder / "classifiers-curves.csv"
        self.rows: dict[str, Row] = {}
        self.curves: dict[str, Curves] = {}
        if self.path.is_file():
            self.rows = {row.network: row for row in map(_row, _lines(self.path))}
        losses: dict[str, list[tuple[float, float]]] = {}
        if self._curves.is_file():
            for line in _lines(self._curves):
                pair = float(line["ours"]), float(line["twin"])
                losses.setdefault(line["network"], []).append(pair)
        for network, pairs in losses.items():
            ours, twin = zip(*pairs, strict=True)
            self.curves[network] = Curves(ours, twin)

    def put(self, row: Row, curves: Curves) -> None:
        """Adds a network, or takes the place of what was found of it before. Each file is there
        whole whenever the process is killed, and the row last. What is kept is what was written,
        rounded, so that a page says the same when it is made again."""
        self.curves[row.network] = Curves(_shortened(curves.ours), _shortened(curves.twin))
        self.rows[row.network] = _row(_line(row))
        columns = ["network", "step", "ours", "twin"]
        renew(self._curves, columns, (line for one in self.curves for line in self._steps(one)))
        facts = dict.fromkeys(name for one in self.rows.values() for name in one.facts)
        renew(self.path, [*_COLUMNS, *facts], map(_line, self.rows.values()))

    def _steps(self, network: str) -> list[dict[str, Any]]:
        pairs = zip(self.curves[network].ours, self.curves[network].twin, strict=True)
        return [
            {"network": network, "step": step, "ours": ours, "twin": twin}
            for step, (ours, twin) in enumerate(pairs, 1)
        ]


_COLUMNS = [one.name for one in fields(Row) if one.name != "facts"]
_TYPES = {one.name: one.type for one in fields(Row) if one.name != "facts"}


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = {name: _TYPES[name](line[name]) for name in _COLUMNS}  # type: ignore[operator]
    return Row(**values, facts={name: line[name] for name in line if name not in _TYPES})


def _line(row: Row) -> dict[str, Any]:
    values = asdict(row)
    facts = values.pop("facts")
    return {name: _short(value) for name, value in values.items()} | facts


def _shortened(losses: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(_short(loss)) for loss in losses)


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
