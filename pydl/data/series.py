"""Series of numbers: monthly temperatures of the sea, or a column of a file that you have."""

import csv
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path

import torch

from pydl.data.extras import require
from pydl.data.files import CorruptFileError
from pydl.data.text import read

SOURCE = (
    "monthly sea surface temperatures off Peru (Nino 1+2) from 1950 to 2010, by the National "
    "Oceanic and Atmospheric Administration, in statsmodels"
)
LICENCE = "public domain"


@dataclass(frozen=True)
class Series:
    """Values at equal intervals."""

    values: torch.Tensor  # [N], float32
    period: int  # after so many it begins again, as months do after 12
    unit: str
    source: str
    licence: str


def el_nino() -> Series:
    """732 monthly means in degrees Celsius, from January 1950.

    Raises:
        MissingExtraError: statsmodels, which has the file, is not installed.
    """
    require("statsmodels")
    # Only the file is wanted: importing the package takes seconds, and its own dependencies.
    spec = importlib.util.find_spec("statsmodels")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    _, *rows = csv.reader(io.StringIO(read(folder / "datasets" / "elnino" / "elnino.csv")))
    months = [float(value) for _, *year in rows for value in year]
    return Series(torch.tensor(months), 12, "°C", SOURCE, LICENCE)


def load(file: Path, period: int, column: str | None = None) -> Series:
    """A column of a CSV file whose first line names the columns, in the order of its lines.

    Args:
        period: see :class:`Series`.
        column: its name; None for the last.

    Raises:
        CorruptFileError: a line has no such number.
        ValueError: there is no such column.
    """
    lines = read(file).splitlines(keepends=True)
    head = next(csv.reader(lines), [])
    name = column or (head[-1] if head else "")
    if name not in head:
        raise ValueError(f"no column is called {name!r} in {file}; there are {', '.join(head)}")
    place, at = head.index(name), 0
    found: list[float] = []
    for number, line in enumerate(lines):
        if number and line.strip():
            cells = next(csv.reader([line]))
            try:
                found.append(float(cells[place]))
            except (IndexError, ValueError) as error:
                raise CorruptFileError(
                    file, at, f"expected a number in the column {name}, got {line.strip()!r}"
                ) from error
        at += len(line.encode())
    return Series(torch.tensor(found), period, name, "your own file", "not stated")
