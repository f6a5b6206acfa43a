"""Results as files hold them: read, checked, and of one form, whichever benchmark wrote them."""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydl.bench.row import PASS_NAMES
from pydl.visualize.operators import verdict


@dataclass(frozen=True)
class Line:
    """One line of a results file."""

    title: str  # of its table
    name: str  # of the layer or the network
    about: str  # its input and what else it is known by
    step: str  # forward, training, ...; empty where a table has but one
    layout: str  # contiguous or channels last; empty where there is no choice
    dtype: str
    served: str  # by which backend; empty where the file does not say
    ratio: float  # PyTorch's time over ours; NaN: not timed
    compiled: float | None  # the same of PyTorch under torch.compile; None: not measured
    detail: str  # why it was not timed
    row: Mapping[str, str]

    @property
    def timed(self) -> bool:
        """Whether there is a ratio."""
        return not math.isnan(self.ratio)

    @property
    def verdict(self) -> str:
        """``win``, ``even`` or ``lose``."""
        return verdict(self.ratio, self.served.rpartition(" ")[2])

    @property
    def by_auto(self) -> bool:
        """Whether ``auto`` chose who serves, and no backend was asked for by name."""
        return self.row.get("asked", self.row.get("backend", "auto")) == "auto"

    @property
    def threads(self) -> str:
        """CPU threads; what a small call costs is always measured with one."""
        return self.row.get("threads") or "1"


@dataclass(frozen=True)
class Table:
    """A kind of results file, known by its columns."""

    columns: tuple[str, ...]
    numbers: tuple[str, ...]  # columns that hold a positive number, or nothing
    read: Callable[[Mapping[str, str]], Line]
    shape: str = ""  # a column of sizes, 16x96x55x55


# Of tables, in the order in which they are shown.
LAYERS, RECURRENT, NETWORKS, FUSED, WRITING, SMALL = TITLES = (
    "Layers",
    "Recurrent layers",
    "Networks",
    "Networks, their layers fused",
    "Networks that write, step by step",
    "Calls of a few hundred bytes",
)
_STEPS = {
    **PASS_NAMES,
    "grad_input": "the input's gradient",
    "grad_weight": "the weight's gradient",
}
_LAYOUTS = {"nchw": "contiguous", "channels_last": "channels last"}


def _ratio(row: Mapping[str, str]) -> float:
    return float(row["ratio"] or math.nan)


def _compiled(row: Mapping[str, str], column: str) -> float | None:
    return float(row[column]) if row.get(column) else None


def _layer(row: Mapping[str, str]) -> Line:
    return Line(
        LAYERS,
        row["case"],
        row["shape"],
        _STEPS.get(row["kind"], row["kind"]),
        _LAYOUTS.get(row["layout"], row["layout"]),
        row["dtype"],
        f"auto: {row['backend']}" if row["asked"] == "auto" else row["backend"],
        _ratio(row),
        _compiled(row, "ratio_compiled"),
        f"{row['status']}: {row['detail']}",
        row,
    )


def _recurrent(row: Mapping[str, str]) -> Line:
    name, _, dtype = row["case"].rpartition(",")
    return Line(
        RECURRENT,
        name.replace(",", ", "),
        "against a loop" if row["against"] == "loop" else "",
        row["pass"].replace("+", " + "),
        "",
        dtype,
        row["backend"],
        _ratio(row),
        None,
        "",
        row,
    )


def _network(row: Mapping[str, str]) -> Line:
    return Line(
        FUSED if row.get("fuse") else NETWORKS,
        row["network"],
        f"{row['batch']}x{row['input']}",
        row["mode"],
        _LAYOUTS.get(row["layout"], row["layout"]),
        "float32",
        "",
        _ratio(row),
        _compiled(row, "ratio_compile"),
        f"{row['status']}: {row['detail']}",
        row,
    )


def _sequence(row: Mapping[str, str]) -> Line:
    return Line(WRITING, row["case"], "", "", "", "float32", "", _ratio(row), None, "", row)


def _small(row: Mapping[str, str]) -> Line:
    theirs, ours = (float(row[name] or math.nan) for name in ("torch_us", "auto_us"))
    what = SMALL, row["layer"], "", row["passes"], "", "float32", "auto"
    return Line(*what, theirs / ours, None, "not measured", row)


# The first whose columns a file has.
TABLES = (
    Table(
        (
            *("case", "kind", "operator", "shape", "layout", "dtype", "asked", "backend"),
            *("status", "detail", "ratio", "ratio_of", "copies", "copies_theirs"),
        ),
        ("ratio", "ratio_compiled", "copies", "copies_theirs", "copy_minimum", "copy_median"),
        _layer,
        "shape",
    ),
    Table(
        ("network", "mode", "layout", "batch", "input", "status", "detail", "ratio"),
        ("ratio", "ratio_compile", "ratio_itself"),
        _network,
        "input",
    ),
    Table(("case", "against", "pass", "backend", "ratio"), ("ratio",), _recurrent),
    Table(("case", "ratio", "ratio_of_least"), ("ratio",), _sequence),
    Table(("layer", "passes", "torch_us", "auto_us"), ("torch_us", "auto_us"), _small),
)


def files(paths: Iterable[Path]) -> dict[Path, list[Path]]:
    """The results files that paths stand for, by their folder: a file is itself, a folder all that
    it holds.

    Raises:
        FileNotFoundError: a path is not there, or a folder holds none.
    """
    found: dict[Path, dict[Path, None]] = {}
    for path in paths:
        held = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not held:
            raise FileNotFoundError(f"{path} holds no results (*.csv)")
        for file in held:
            if not file.is_file():
                raise FileNotFoundError(f"{file} is not there")
            found.setdefault(file.parent, {})[file] = None
    return {folder: list(held) for folder, held in found.items()}


def read(path: Path) -> list[Line]:
    """The lines of one file.

    Raises:
        ValueError: it is no results file, or a line of it is broken; the message names the line.
    """
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        head = reader.fieldnames or ()
        table = next((one for one in TABLES if set(one.columns) <= set(head)), None)
        if table is None:
            raise ValueError("no columns of a results file")
        return [table.read(_checked(row, table)) for row in reader]
    except csv.Error as error:  # in a line that does not count yet
        raise ValueError(f"{path}, line {reader.line_num + 1}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}, line {max(reader.line_num, 1)}: {error}") from None


def _checked(row: Mapping[str, str], table: Table) -> Mapping[str, str]:
    if None in row or None in row.values():
        raise ValueError("not as many cells as columns")
    for column in table.numbers:
        text = row.get(column)
        if text and not _positive(text):
            raise ValueError(f"{column} is {text!r}, not a positive number")
    if table.shape and not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", row[table.shape]):
        raise ValueError(f"{table.shape} is {row[table.shape]!r}, not sizes such as 16x96x55x55")
    return row


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
