"""The benchmark: ``python bench/run.py`` measures the operators of this checkout against stock
PyTorch.

Every row is checked against the float64 reference before it is timed, and who served it is
observed, not assumed. Ours, theirs and one copy of the input are timed in turns in one process (see
``pydl.measure``). On a CPU with one thread the process is pinned to one core. Files are brought up
to date after every case, so a run that is stopped leaves what it has measured. Needs nothing beyond
PyTorch and NumPy; with matplotlib there is a plot too.

Exit status: 0 if every check passed, 1 if a case was wrong or broke, 2 for a mistake in the
arguments.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is measured is the checkout that this file belongs to

import options  # noqa: E402
from cases import CASES  # noqa: E402
from harness import DTYPES, Setting, measure_case  # noqa: E402
from plot import draw  # noqa: E402
from results import Row, write  # noqa: E402

from pydl import backends  # noqa: E402
from pydl.models.calls import PASSES  # noqa: E402

NAMES = ("auto", *backends.BACKENDS)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], prog="bench/run.py")
    parser.add_argument(
        "--cases", default="*", metavar="GLOB", help="names, with * and ?, separated by commas"
    )
    options.add_to(parser, "case")
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
    chosen = parser.parse_args(argv)
    options.check(parser, chosen)
    try:
        chosen.cases = options.matching(CASES, chosen.cases, "case")
    except ValueError as error:
        parser.error(str(error))
    return chosen


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit status."""
    chosen = arguments(argv)
    if chosen.list:
        for case in chosen.cases:
            print(
                f"{case.name:24}{case.operator:22}"
                f"{'x'.join(map(str, case.call().input)):16}{case.about}"
            )
        return 0
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
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
