"""The benchmark's plot: how many times as fast as PyTorch, losses in another colour."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydl.bench.row import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FASTER, _SLOWER, _THEIRS, _INK, _LINE = "#2563c9", "#c2541b", "#98a2b3", "#1c2430", "#d8dde6"
_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def draw(rows: Sequence[Row], where: str, path: Path) -> None:
    """Draw the ratios into a PNG; says so where matplotlib is missing."""
    timed = [(row, row.ratio) for row in rows if row.ratio is not None]
    if importlib.util.find_spec("matplotlib") is None:
        print("No plot: matplotlib is not installed (pip install 'pydl-kernels[plots]').")
    elif timed:
        ratios(timed, where).savefig(path, dpi=130)


def ratios(rows: Sequence[tuple[Row, float]], where: str) -> "Figure":
    """One bar per row with its ratio, on a logarithmic scale around 1; what PyTorch's own operator
    served is grey."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9.5, 1.3 + 0.27 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (row, ratio) in enumerate(rows):
        color = _THEIRS if row.backend == "aten" else _FASTER if ratio >= 1 else _SLOWER
        axes.barh(place, ratio - 1, left=1, color=color, height=0.7)
        right = ratio >= 1
        said = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"
        axes.annotate(
            said,
            (ratio, place),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            color=_INK,
        )
    axes.set_xscale("log")
    found = [ratio for _, ratio in rows]
    low, high = min(found), max(found)
    axes.set_xlim(min(0.5, 0.6 * low), max(2, 1.6 * high))
    axes.set_xticks([tick for tick in _TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.axvline(1, color=_INK, linewidth=0.8)
    axes.grid(axis="x", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(rows)), _labels([row for row, _ in rows]), fontsize=8)
    axes.tick_params(length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("times as fast as stock PyTorch", color=_INK)
    axes.set_title(where, fontsize=10, color=_INK, loc="left")
    present = {"faster": _FASTER, "slower": _SLOWER, "PyTorch's own operator serves": _THEIRS}
    figure.legend(
        handles=[Patch(color=color, label=name) for name, color in present.items()],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
    )
    return figure


def _labels(rows: Sequence[Row]) -> list[str]:
    """Case and pass, and what differs between the rows' settings."""
    varying = [
        field
        for field in ("shape", "layout", "dtype", "backend")
        if len({(row.case, getattr(row, field)) for row in rows}) > len({row.case for row in rows})
    ]
    passes = {"both": "fwd + bwd", "grad_input": "grad input", "grad_weight": "grad weight"}
    return [
        ", ".join(
            [row.case, passes.get(row.kind, row.kind), *(getattr(row, field) for field in varying)]
        )
        for row in rows
    ]
