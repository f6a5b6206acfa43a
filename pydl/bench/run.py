"""Measures the operators against stock PyTorch: ``pydl bench``.

Every row is checked against the float64 reference before it is timed, and who served it is
observed, not assumed. Ours, theirs and one copy of the input are timed in turns in one process (see
``pydl.measure``). On a CPU with one thread the process is pinned to one core. Files are brought up
to date after every case, so a run that is stopped leaves what it has measured. Needs nothing beyond
PyTorch and NumPy; with matplotlib there is a plot too. ``--html`` writes a page of it, ``--from``
one of files that were written before.

Exit status: 0 if every check passed, 1 if a case was wrong or broke, 2 for a mistake in the
arguments.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from pydl import backends
from pydl.bench import options
from pydl.bench.cases import CASES
from pydl.bench.harness import DTYPES, Setting, measure_case
from pydl.bench.plot import draw
from pydl.bench.results import write
from pydl.bench.row import Row
from pydl.models.calls import PASSES

NAMES = ("auto", *backends.BACKENDS)
RESULTS = Path("pydl-bench")  # in the current directory


def arguments(argv: Sequence[str] | None, prog: str, results: Path) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0] + ".", prog=prog)
    parser.add_argument(
        "--cases", default="*", metavar="GLOB", help="names, with * and ?, separated by commas"
    )
    options.add_to(parser, "case", results)
    parser.add_argument(
        "--passes",
        type=options.choices(PASSES),
        default=["forward", "both"],
        metavar="PASS,...",
        help=", ".join(PASSES),
    )
    parser.add_argument(
        "--dtype",
        type=options.choices(list(DTYPES)),
        default=["float32"],
        metavar="DTYPE,...",
        help=", ".join(DTYPES),
    )
    parser.add_argument(
        "--backend",
        type=options.choices(NAMES),
        default=["auto"],
        metavar="NAME,...",
        help=", ".join(NAMES),
    )
    parser.add_argument(
        "--name", default="results", help="of the files in DIR, without their endings"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="show what was measured on a page, too"
    )
    parser.add_argument(
        "--from",
        dest="shown",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="measure nothing: the page is of these results files, or of all in these folders",
    )
    chosen = parser.parse_args(argv)
    options.check(parser, chosen)
    if chosen.shown:
        idle = parser.parse_args(["--from", "-"])
        idle.html, idle.shown = chosen.html, chosen.shown
        if chosen.html is None or chosen != idle:
            parser.error("--from PATH... goes with --html FILE, and with nothing else")
    if chosen.html is not None and chosen.html.is_dir():
        parser.error(f"--html {chosen.html} is a folder")
    try:
        chosen.cases = options.matching(CASES, chosen.cases, "case")
    except ValueError as error:
        parser.error(str(error))
    return chosen


def main(
    argv: Sequence[str] | None = None, prog: str = "pydl bench", results: Path = RESULTS
) -> int:
    """Runs the benchmark; returns the exit status.

    Args:
        argv: the arguments, if not those of the process.
        prog: what the command is called.
        results: where a folder for each kind of machine lies or is made.
    """
    chosen = arguments(argv, prog, results)
    if chosen.list:
        for case in chosen.cases:
            print(
                f"{case.name:24}{case.operator:22}"
                f"{'x'.join(map(str, case.call().input)):16}{case.about}"
            )
        return 0
    if chosen.shown:
        return _show(chosen.shown, chosen.html, prog)
    where, facts, out = options.set_up(chosen)

    rows: list[Row] = []
    settings = itertools.product(chosen.batch, chosen.layout, chosen.dtype, chosen.backend)
    for batch, layout, dtype, backend in settings:
        setting = Setting(
            batch, layout, dtype, backend, chosen.device, chosen.seconds, chosen.compile
        )
        for case in chosen.cases:
            for row in measure_case(case, chosen.passes, setting):
                rows.append(row)
                print(row, flush=True)
            write(rows, facts, where, out, chosen.name)
    draw(rows, where, out / f"{chosen.name}.png")
    bad = [row for row in rows if row.status in ("wrong", "broken")]
    print(f"{len(rows)} rows, {len(bad)} wrong or broken; {out / chosen.name}.csv, .md")
    status = 1 if bad or not rows else 0
    if chosen.html is not None:
        status = _show([out / f"{chosen.name}.csv"], chosen.html, prog) or status
    return status


def _show(paths: Sequence[Path], page: Path, prog: str) -> int:
    """Writes the page of these results; returns the exit status."""
    # It needs more than PyTorch and NumPy.
    from pydl.bench.page import document

    try:
        text = document(paths)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    print(f"The page: {page}")
    return 0
