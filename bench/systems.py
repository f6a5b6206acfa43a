"""Tables of whole systems, both instruction sets beside each other: networks whose layers are
computed together (bench/networks.py --fuse) and networks that write (bench/sequences.py)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from figures import ISAS, read, setting

from pydl.bench.results import geometric_mean

Rows = Mapping[str, list[dict[str, str]]]  # by instruction set

_WAYS = {
    (mode, layout): f"{mode}, {said}"
    for mode in ("inference", "training")
    for layout, said in (("nchw", "contiguous"), ("channels_last", "channels last"))
}


def _measured(*names: str) -> tuple[Rows, list[Path]]:
    """The rows of these files of every instruction set, and which files there are."""
    files = {isa: [folder / f"{name}-1.csv" for name in names] for isa, folder in ISAS.items()}
    there = {isa: [file for file in some if file.is_file()] for isa, some in files.items()}
    rows = {isa: [row for file in some for row in read(file)] for isa, some in there.items()}
    return rows, [file for some in there.values() for file in some]


def _table(columns: Sequence[str], lines: Mapping[str, Sequence[str]]) -> list[str]:
    table = [f"| | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    return table + [f"| {name} | {' | '.join(cells)} |" for name, cells in lines.items()]


def _caption(rows: Rows, files: Sequence[Path], root: Path) -> str:
    every = [row for some in rows.values() for row in some]
    dates = sorted({row["date"] for row in every})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    links = ", ".join(
        f"[{file.parent.name}/{file.name}](../{file.relative_to(root)})" for file in files
    )
    return f"One thread of {setting(every)}, float32, {days}: {links}."


def fused(root: Path) -> str:
    """Networks with their layers computed together, against stock PyTorch, by way of computing."""
    rows, files = _measured("fused", "fused-training")
    cells: dict[str, dict[str, tuple[str, float]]] = {}
    columns: list[str] = []
    for isa, some in rows.items():
        for (mode, layout), said in _WAYS.items():
            column = f"{isa}: {said}"
            for row in some:
                if (row["mode"], row["layout"]) != (mode, layout) or not row["ratio"]:
                    continue
                compiled = row.get("ratio_compile")
                beside = f" ({float(compiled):.2f})" if compiled else ""
                ratio = float(row["ratio"])
                cells.setdefault(row["network"], {})[column] = f"{ratio:.2f}x{beside}", ratio
                if column not in columns:
                    columns.append(column)
    lines = {
        f"`{network}`": [of[column][0] if column in of else "" for column in columns]
        for network, of in sorted(cells.items())
    }

    def mean(column: str) -> str:
        return f"{geometric_mean(of[column][1] for of in cells.values() if column in of):.2f}x"

    lines["geometric mean"] = [mean(column) for column in columns]
    itself = [float(row["ratio_itself"]) for some in rows.values() for row in some]
    said = (
        "PyTorch's time over ours; in brackets that of stock PyTorch under `torch.compile` over "
        "ours, where it was measured. Images of 224x224, one in inference, four in training. "
        f"PyTorch against itself, in the same turns: {min(itself):.2f} to {max(itself):.2f}x. "
    )
    return "\n".join([*_table(columns, lines), "", said + _caption(rows, files, root)])


def sequences(root: Path) -> str:
    """Networks that read and write, step by step, against stock PyTorch."""
    rows, files = _measured("sequences")
    cells: dict[str, list[str]] = {}
    for place, some in enumerate(rows.values()):
        for row in some:
            line = cells.setdefault(row["case"], [""] * 2 * len(rows))
            line[2 * place] = f"{float(row['ours_us']):,.0f}"
            line[2 * place + 1] = f"{row['ratio']}x ({row['ratio_of_least']})"
    columns = [cell for isa in rows for cell in (f"{isa}: us", "ratio")]
    said = (
        "Medians of ours, and PyTorch's over them; in brackets the ratio of the least of each. "
        "Both are timed in turns, and repeats differ by some 3 %. "
    )
    return "\n".join([*_table(columns, cells), "", said + _caption(rows, files, root)])
