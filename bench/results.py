"""The benchmark's rows, and how they are written and read: CSV, a Markdown table."""

import csv
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from pydl.measure import Times

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RESULTS = Path(__file__).resolve().parent / "results"
SHOWN = RESULTS / "shown"  # what networks learned (shown.py)

_PASS_NAMES = {"both": "forward + backward"}
_STATISTICS = ("minimum", "p20", "median", "p80")


@dataclass
class Row:
    """One case, one pass, one setting. Times in microseconds; ratio and copies by ``ratio_of``."""

    case: str
    kind: str
    operator: str
    shape: str
    weight: str
    arguments: str
    layout: str
    dtype: str
    asked: str
    ratio_of: str  # minimum on a CPU, median on a GPU
    status: str  # ok, wrong (a check failed: not timed), broken (an exception), not served
    detail: str = ""
    backend: str = ""
    error_ours: float | None = None
    error_theirs: float | None = None
    ours_minimum: float | None = None
    ours_p20: float | None = None
    ours_median: float | None = None
    ours_p80: float | None = None
    theirs_minimum: float | None = None
    theirs_p20: float | None = None
    theirs_median: float | None = None
    theirs_p80: float | None = None
    copy_minimum: float | None = None
    copy_median: float | None = None
    compiled_minimum: float | None = None  # PyTorch under torch.compile
    compiled_median: float | None = None
    samples: int | None = None
    ratio: float | None = None  # PyTorch's time over ours: above 1 ours is faster
    ratio_compiled: float | None = None  # the same of PyTorch under torch.compile
    copies: float | None = None  # our time over the time of one copy of the input
    copies_theirs: float | None = None
    kept_ours: int | None = None  # bytes that autograd keeps for backward, the input's own aside
    kept_theirs: int | None = None
    goal: float | None = None
    kernels_ours: str = ""
    kernels_theirs: str = ""

    def take(self, times: Mapping[str, Times]) -> None:
        """Fill in the times of ``ours``, ``theirs``, ``copy`` and, where it was timed,
        ``compiled``."""
        for who in ("ours", "theirs"):
            for statistic in _STATISTICS:
                setattr(self, f"{who}_{statistic}", 1e6 * getattr(times[who], statistic))
        for who in {"copy", "compiled"} & times.keys():
            for statistic in ("minimum", "median"):
                setattr(self, f"{who}_{statistic}", 1e6 * getattr(times[who], statistic))
        self.samples = times["ours"].samples
        ours, theirs, copy = (
            getattr(times[who], self.ratio_of) for who in ("ours", "theirs", "copy")
        )
        self.ratio, self.copies, self.copies_theirs = theirs / ours, ours / copy, theirs / copy
        if "compiled" in times:
            self.ratio_compiled = getattr(times["compiled"], self.ratio_of) / ours

    def of(self, who: str) -> float | None:
        """The time that counts of ``ours``, ``theirs`` or ``compiled``, in microseconds."""
        return getattr(self, f"{who}_{self.ratio_of}")

    def __str__(self) -> str:
        what = (
            f"{self.case:40} {_PASS_NAMES.get(self.kind, self.kind):20}{self.shape:16}"
            f"{self.layout:14}{self.dtype:10}"
        )
        if self.ratio is None:
            return f"{what}{self.backend or self.asked:10}{self.status}: {self.detail}"
        goal = (
            ""
            if self.goal is None
            else f"  goal {self.goal:g}: {'met' if self.ratio >= self.goal else 'missed'}"
        )
        times = f"{self.of('ours'):11.1f} us  PyTorch {self.of('theirs'):11.1f} us"
        compiled = ""
        if self.ratio_compiled is not None:
            compiled = f"  compiled {self.of('compiled'):9.1f} us  {self.ratio_compiled:7.2f}x"
        return (
            f"{what}{self.backend:10}{times}  {self.ratio:7.2f}x{compiled}  {self.copies:7.1f} "
            f"copies{goal}"
        )


def folder(device: str) -> Path:
    """Where a device's results go: those of "NVIDIA H200" to bench/results/h200."""
    name = re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("nvidia ")).strip("-")
    return RESULTS / (name or "unknown")


def devices() -> list[Path]:
    """The folders of the devices that were measured."""
    return sorted(one for one in RESULTS.iterdir() if one.is_dir() and one != SHOWN)


def write(rows: Sequence[Row], facts: Mapping[str, str], where: str, out: Path, name: str) -> None:
    """Write ``name.csv`` and ``name.md`` into ``out``.

    Args:
        rows: what was measured.
        facts: columns that are the same for all rows: device, versions, settings.
        where: the device and how it was used, in words.
        out: a folder, made where it is missing.
        name: the files' name.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_csv(Row, rows, facts, out / f"{name}.csv")
    (out / f"{name}.md").write_text(markdown(rows, facts, where), encoding="utf-8")


def write_csv(
    kind: type["DataclassInstance"],
    rows: Sequence["DataclassInstance"],
    facts: Mapping[str, str],
    path: Path,
) -> None:
    """Write rows of this ``kind``, a column for each field and one for each of the facts."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(kind)] + list(facts))
        writer.writeheader()
        writer.writerows(
            {key: _plain(value) for key, value in asdict(row).items()} | dict(facts) for row in rows
        )


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


def markdown(rows: Sequence[Row], facts: Mapping[str, str], where: str) -> str:
    """The rows as one table, under a line that says what they were measured on."""
    which = {"minimum": "the minimum", "median": "the median"}.get(
        rows[0].ratio_of if rows else "", ""
    )
    lines = [*heading(where, facts), _LEGEND.format(which=which), "", *head(_COLUMNS, 6)]
    for row in rows:
        cells = [
            row.case,
            _PASS_NAMES.get(row.kind, row.kind),
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
