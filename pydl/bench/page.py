"""The page of results: every measured line as a bar beside PyTorch's, wins and losses alike."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import chain, starmap
from pathlib import Path
from typing import TypeVar

from pydl.bench import lists, reading
from pydl.bench.cases import CASES
from pydl.bench.memory_bound import shares
from pydl.bench.reading import Line
from pydl.bench.results import geometric_mean
from pydl.visualize import page
from pydl.visualize.bars import Scale, key, ratio
from pydl.visualize.operators import EVEN

_FAMILIES = {case.name: case.family for case in CASES}
Key = TypeVar("Key")


def document(paths: Iterable[Path]) -> str:
    """One self-contained HTML file about these results files, and those in these folders.

    Raises:
        FileNotFoundError: there are none.
        ValueError: one is no results file; the message names it and the line.
    """
    folders = {
        name: {file: reading.read(file) for file in held}
        for name, held in reading.files(paths).items()
    }
    by_folder = {name: [*chain(*files.values())] for name, files in folders.items()}
    every = [*chain(*by_folder.values())]
    parts = [_tiles(every), *starmap(_files, folders.items())]
    for name, lines in by_folder.items():
        parts += [page.part(str(name))] * (len(folders) > 1)
        parts += _cards(lines)
    lead = """
        How many times as fast as stock PyTorch: its time over ours, both taken in turns in one
        process, of layers and networks after what they compute was compared. Above 1 the kernels
        here are faster, below 1 they are slower, and both are shown. Every figure on this page was
        measured."""
    names = ("python", "torch", "numpy", "triton", "pydl")
    versions = {name: " and ".join(_values(every, name)) for name in names}
    return page.page("pydl against PyTorch", lead, parts, versions, style=lists.STYLE)


def _tiles(lines: Sequence[Line]) -> str:
    verdicts = [line.verdict for line in lines if line.timed]
    slower, within = verdicts.count("lose"), f"{100 * (EVEN - 1):.0f}&nbsp;%"
    by_auto = [line for line in lines if line.timed and line.by_auto]
    lost = sum(line.verdict == "lose" for line in by_auto)
    none = f"are no different (within {within}), or PyTorch's own operator serves"
    tiles = [
        (str(verdicts.count("win")), "timings are faster here than in stock PyTorch", True),
        (str(verdicts.count("even")), none, True),
        (str(slower), f"are slower here, by more than {within}", not slower),
    ]
    if by_auto:
        chose = f"""are slower by more than {within} where <code>auto</code> chose; the others were
            asked for by name"""
        tiles.append((f"{lost} of {len(by_auto)}", chose, not lost))
    return page.tiles(tiles)


def _values(lines: Iterable[Line], column: str) -> list[str]:
    return sorted({value for line in lines if (value := line.row.get(column))})


def _files(folder: Path, files: Mapping[Path, Sequence[Line]]) -> str:
    """What was measured on what, file by file."""
    rows = []
    for file, lines in files.items():
        columns = ("device", "pydl_isa", "threads", "torch", "date")
        facts = (", ".join(_values(lines, column)) for column in columns)
        timed = str(sum(line.timed for line in lines))
        dtypes = ", ".join(dict.fromkeys(line.dtype for line in lines))
        rows.append([escape(cell) for cell in (file.name, timed, *facts, dtypes)])
    head = ["file", "timed", "machine", "kernels", "threads", "PyTorch", "date", "dtypes"]
    on_gpu = any(_values(lines, "capability") for lines in files.values())
    return page.section(
        f"What was measured, and on what: {folder}",
        page.table(head, rows, numbers=(1, 4)),
        "" if on_gpu else page.paragraph("Nothing ran on a GPU, and nothing is predicted of one."),
    )


def _cards(lines: Sequence[Line]) -> Iterator[str]:
    timed = [line for line in lines if line.timed]
    timed.sort(key=lambda line: reading.TITLES.index(line.title))
    if timed:
        yield _overview(timed)
    for words, group in _grouped(timed, _card).items():
        title = ", ".join(filter(None, words))
        yield page.section(title, _itself(group), *_by_dtype(group, lists.bars))
    yield from _rooflines(timed)
    left = [line for line in lines if not line.timed]
    if left:
        head = ["", "input", "pass", "layout", "dtype", "why"]
        cells = [(one.name, one.about, one.step, one.layout, one.dtype, one.detail) for one in left]
        made = page.table(head, [[escape(cell) for cell in row] for row in cells])
        yield page.section("Not timed", page.details(f"{len(left)} of {len(lines)} lines", made))


def _grouped(lines: Iterable[Line], by: Callable[[Line], Key]) -> dict[Key, list[Line]]:
    found: dict[Key, list[Line]] = {}
    for line in lines:
        found.setdefault(by(line), []).append(line)
    return found


def _card(line: Line) -> tuple[str, ...]:
    """The words of its card's title."""
    threads = "" if line.threads == "1" else f"{line.threads} threads"
    return line.title, line.step, line.layout, threads


def _itself(lines: Sequence[Line]) -> str:
    """Of networks: their mean, and how far PyTorch is from itself."""
    itself = [float(value) for line in lines if (value := line.row.get("ratio_itself"))]
    if not itself:
        return ""
    return page.paragraph(f"""
        Geometric mean {ratio(geometric_mean(line.ratio for line in lines))}. PyTorch, timed twice
        in the same turns, is {ratio(min(itself))} to {ratio(max(itself))} of itself: what is nearer
        to 1 than that says nothing.""")


def _overview(lines: Sequence[Line]) -> str:
    """A dot for each line, by family of operators, those that gain most first."""
    scale = Scale(line.ratio for line in lines)
    families = _grouped(lines, lambda line: _FAMILIES.get(line.name, line.title))
    means = {name: geometric_mean(one.ratio for one in of) for name, of in families.items()}
    made = []
    for name in sorted(families, key=lambda name: -means[name]):
        of = families[name]
        dots = "".join(
            f'<i class="{one.verdict}" style="left:{scale.place(one.ratio):.1f}%"></i>'
            for one in sorted(of, key=lambda one: one.ratio)
        )
        faster = sum(one.ratio > 1 for one in of)
        made.append(
            f'<div><span class="name">{escape(name)}</span><div class="track">{dots}</div>'
            f"<span>{faster} of {len(of)} above 1</span></div>"
        )
    return page.section(
        "Everything at once",
        page.paragraph("""
            Each dot is one timing, on a logarithmic scale around 1; what is left of the line is
            slower here. Kernels asked for by name are among them, and <code>auto</code> leaves to
            PyTorch what they lose."""),
        f'<div class="lines families" {scale.style}>',
        *made,
        f"<div>{scale.ticks()}</div></div>",
        key(),
    )


def _by_dtype(lines: Sequence[Line], bars: Callable[[Sequence[Line]], str]) -> Iterator[str]:
    """The bars of float32, and those of other dtypes for who asks."""
    others = _grouped(lines, lambda line: line.dtype)
    first = "float32" if "float32" in others else lines[0].dtype
    yield bars(others.pop(first))
    for dtype, group in others.items():
        slower = sum(line.verdict == "lose" for line in group)
        yield page.details(f"{dtype}: {slower} of {len(group)} are slower", bars(group))


def _rooflines(lines: Sequence[Line]) -> Iterator[str]:
    near = [share.line for share in shares(lines)]
    for layout, group in _grouped(near, lambda line: line.layout).items():
        yield page.section(
            f"Roofline: forwards bound by memory, {layout}",
            page.paragraph("""
                What must move at the least, each operand read once and the result written once,
                over the time it took: bytes a second, in parts of those of one copy of the input,
                timed in the same turns. That copy is the roof. Small inputs stay in the cache,
                where the roof is higher and the way to the call counts for more. The mark on a bar
                is PyTorch's. Dense convolutions are bound by arithmetic and are not here."""),
            *_by_dtype(group, _roofline),
        )


def _roofline(lines: Sequence[Line]) -> str:
    """Bytes a second over those of a copy, PyTorch's marked on the same track."""
    found = sorted(shares(lines), key=lambda share: -share.ours)
    one = 100 / max(1.0, *(max(share.ours, share.theirs) for share in found))
    made = []
    for share in found:
        bar = (
            f'<div class="track"><i class="{share.line.verdict}" '
            f'style="left:0;width:{one * share.ours:.1f}%"></i>'
            f'<u style="left:{one * share.theirs:.1f}%"></u></div>'
            f'<b class="ratio">{100 * share.ours:.0f} %</b>'
        )
        roof = f"{share.copied / 1e9:.0f} GB/s"
        made.append(lists.entry(share.line, bar, f"<b>{100 * share.theirs:.0f} %</b>", roof))
    ticks = f'<div class="track ticks"><span style="left:{one:.1f}%">a copy</span></div>'
    head = lists.head(ticks, "of a copy", "PyTorch", by="a copy")
    return lists.listed(head, made, f'style="--one:{one:.2f}%"')
