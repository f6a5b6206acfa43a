"""What becomes of each epoch's figures: a CSV file, TensorBoard, a progress bar."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol


@dataclass(frozen=True)
class Epoch:
    """Once through the training data. Accuracies are None where nothing is classified, held-out
    figures where nothing is held out."""

    number: int  # from 1
    loss: float  # mean over the training data while learning
    accuracy: float | None
    held_out_loss: float | None
    held_out_accuracy: float | None
    rate: float  # the last step's learning rate, of the first parameter group
    seconds: float  # since this process began to train


class Log(Protocol):
    """What :func:`pydl.train.fit` tells of each epoch."""

    def write(self, epochs: Sequence[Epoch]) -> None:
        """All epochs so far, the last one new."""


def renew(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """A CSV file, written beside ``path`` and renamed: whoever reads it has the old one or the new
    one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


class Csv:
    """A file with a line an epoch, renewed whole each time: a resumed run has no line twice."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def write(self, epochs: Sequence[Epoch]) -> None:
        columns = [field.name for field in fields(Epoch)]
        renew(self.path, columns, (asdict(epoch) for epoch in epochs))


class TensorBoard:
    """Curves for TensorBoard in a folder; those of epochs that a resumed run trains again replace
    the old ones."""

    def __init__(self, folder: Path | str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "tensorboard is missing: pip install 'pydl-kernels[tensorboard]'"
            ) from error
        self._make = SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None

    def write(self, epochs: Sequence[Epoch]) -> None:
        newest = epochs[-1]
        if self._writer is None:
            self._writer = self._make(self._folder, purge_step=newest.number)
        for name, value in asdict(newest).items():
            if name != "number" and value is not None:
                self._writer.add_scalar(name, value, newest.number)
        self._writer.flush()


class Progress(AbstractContextManager["Progress"]):
    """A bar on a terminal; elsewhere nothing.

    Args:
        total: steps of the whole run.
        shown: whether this process shows it.
    """

    def __init__(self, total: int, shown: bool) -> None:
        from rich import progress
        from rich.console import Console

        console = Console(stderr=True)
        self._bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console,
            disable=not (shown and console.is_terminal),
        )
        self._task = self._bar.add_task("training", total=total)

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def at(self, step: int, epoch: int, loss: float) -> None:
        self._bar.update(self._task, completed=step, description=f"epoch {epoch}, loss {loss:.4f}")
