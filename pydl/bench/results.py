"""The benchmark's rows as files: CSV, a Markdown table."""

import csv
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from pydl.bench.row import PASS_NAMES, Row

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def folder(device: str) -> str:
    """What the folder of a device's results is called: of "NVIDIA H200", h200."""
    name = re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("nvidia ")).strip("-")
    return name or "unknown"


def write(rows: Sequence[Row], facts: Mapping[str, str], where: str, out: Path, name: str) -> None:
    """Write ``name.csv`` and ``name.md`` into ``out``.

    Args:
        rows: what was measured.
        facts: columns that are the same for all rows: device, versions, settings.
        where: the device and how it was used, in words.
        out: a folder, made where it is missing.
        name: the files' name.
    """
    write_csv(Row, rows, facts, out / f"{name}.csv")
    (out / f"{name}.md").write_text(markdown(rows, facts, where), encoding="utf-8")


def write_csv(
    kind: type["DataclassInstance"],
    rows: Sequence["DataclassInstance"],
    facts: Mapping[str, str],
    path: Path,
) -> None:
    """Write rows of this ``kind``, a column for each field and one for each of the facts."""
    columns = [field.name for field in fields(kind)] + list(facts)
    plain = ({key: _plain(value) for key, value in asdict(row).items()} for row in rows)
    write_table(columns, (row | dict(facts) for row in plain), path)


def write_table(columns: Iterable[str], rows: Iterable[Mapping[str, object]], path: Path) -> None:
    """Write a CSV with a line for each row, under the names of the columns; its folder is made
    where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def _kept(row: Row) -> str:
    """Bytes per element of the input, ours and PyTorch's."""
    if row.kept_ours is None or row.kept_theirs is None:
        return ""
    elements = math.prod(map(int, row.shape.split("x")))
    return f"{row.kept_ours / elements:.2f} / {row.kept_theirs / elements:.2f}"


def _plain(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else value


_COLUMNS = (
    *("case", "pass", "input", "layout", "dtype", "backend"),
    *("ours, us", "PyTorch, us", "ratio", "compiled, us", "ratio to compiled"),
    *("goal", "copies", "kept", "deviation"),
)
_LEGEND = textwrap.dedent("""\
    Times are {which} of many samples, ours, PyTorch's and, where it was measured, those of
    PyTorch under torch.compile in turns in one process.

    - Ratio: PyTorch's time over ours.
    - Copies: time in units of one copy of the input, ours and PyTorch's.
    - Kept: bytes that stay in memory from forward to backward, per element of the input and
      without the operands themselves, ours and PyTorch's.
    - Deviation: the largest relative error of output and gradients, ours and PyTorch's. Every row
      was checked against the float64 reference before it was timed.""")


def heading(where: str, facts: Mapping[str, str]) -> list[str]:
    """The first lines of a table's file: what the rows were measured on."""
    versions = ", ".join(
        f"{key} {value}" for key, value in facts.items() if value and key != "device"
    )
    return [f"# {where}", "", f"{versions}.", ""]


def head(columns: Sequence[str], words: int) -> list[str]:
    """The first two lines of a table; all but the first ``words`` columns hold figures."""
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * words}{'--:|' * (len(columns) - words)}",
    ]


def speedup(ratio: float) -> str:
    """A ratio as tables show it, bold where nothing is lost."""
    return f"**{ratio:.2f}**" if ratio >= 1 else f"{ratio:.2f}"


def geometric_mean(ratios: Iterable[float]) -> float:
    """Of ratios: half as fast and twice as fast make 1. NaN where there is none."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


def markdown(rows: Sequence[Row], facts: Mapping[str, str], where: str) -> str:
    """The rows as one table, under a line that says what they were measured on."""
    which = {"minimum": "the minimum", "median": "the median"}.get(
        rows[0].ratio_of if rows else "", ""
    )
    lines = [*heading(where, facts), _LEGEND.format(which=which), "", *head(_COLUMNS, 6)]
    for row in rows:
        cells = [
            row.case,
            PASS_NAMES.get(row.kind, row.kind),
            row.shape,
            row.layout,
            row.dtype,
            row.backend or row.asked,
        ]
        if row.ratio is None:
            cells += [f"{row.status}: {row.detail}".replace("|", "/"), *[""] * 8]
        else:
            goal = (
                ""
                if row.goal is None
                else f"{row.goal:g} {'met' if row.ratio >= row.goal else 'missed'}"
            )
            compiled = [row.detail.replace("|", "/"), ""]
            if row.ratio_compiled is not None:
                compiled = [f"{row.of('compiled'):.1f}", speedup(row.ratio_compiled)]
            copies = f"{row.copies:.1f} / {row.copies_theirs:.1f}"
            deviation = f"{row.error_ours:.0e} / {row.error_theirs:.0e}"
            cells += [
                f"{row.of('ours'):.1f}",
                f"{row.of('theirs'):.1f}",
                speedup(row.ratio),
                *compiled,
                goal,
                copies,
                _kept(row),
                deviation,
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
