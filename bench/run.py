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
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is measured is the checkout that this file belongs to

import torch  # noqa: E402
from cases import matching  # noqa: E402
from harness import DTYPES, LAYOUTS, Setting, measure_case  # noqa: E402
from plot import draw  # noqa: E402
from results import Row, folder, write  # noqa: E402

from pydl import backends, measure  # noqa: E402
from pydl.models.calls import PASSES  # noqa: E402

NAMES = ("auto", *backends.BACKENDS)


def _choices(accepted: Sequence[str]):
    """An argument type: names separated by commas, each one of ``accepted``."""

    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in accepted:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(accepted)}")
        return names

    return parse


def _batches(text: str) -> list[int]:
    try:
        batches = [int(part) for part in text.split(",")]
    except ValueError:
        batches = [0]
    if min(batches) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of positive integers")
    return batches


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], prog="bench/run.py")
    parser.add_argument(
        "--cases", default="*", metavar="GLOB", help="names, with * and ?, separated by commas"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--batch",
        type=_batches,
        default=[None],
        metavar="N,...",
        help="images (default: each case's own)",
    )
    parser.add_argument(
        "--passes",
        type=_choices(PASSES),
        default=["forward", "both"],
        metavar="PASS,...",
        help=", ".join(PASSES),
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; with 1 the process is pinned to a core"
    )
    parser.add_argument(
        "--layout",
        type=_choices(list(LAYOUTS)),
        default=["nchw"],
        metavar="LAYOUT,...",
        help=", ".join(LAYOUTS),
    )
    parser.add_argument(
        "--dtype",
        type=_choices(list(DTYPES)),
        default=["float32"],
        metavar="DTYPE,...",
        help=", ".join(DTYPES),
    )
    parser.add_argument(
        "--backend",
        type=_choices(NAMES),
        default=["auto"],
        metavar="NAME,...",
        help=", ".join(NAMES),
    )
    parser.add_argument(
        "--against",
        choices=("eager", "compile"),
        default="eager",
        help="PyTorch as it comes or under torch.compile",
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="how long to measure each row, roughly"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: bench/results/<name of the CPU or GPU>"
    )
    parser.add_argument(
        "--name", default="results", help="of the files in DIR, without their endings"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    chosen = parser.parse_args(argv)
    if chosen.threads < 1:
        parser.error("--threads must be at least 1")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but PyTorch sees no CUDA device")
    try:
        chosen.cases = matching(chosen.cases)
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
    core = None
    torch.set_num_threads(chosen.threads)
    if chosen.device == "cpu" and chosen.threads == 1:
        core = measure.pin_to_one_core()
    if chosen.device == "cuda":
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    device = measure.device_name(chosen.device)
    where = (
        f"{device}, {chosen.threads} thread{'s' * (chosen.threads > 1)}"
        if chosen.device == "cpu"
        else device
    )
    where += "" if core is None else f", pinned to core {core}"
    facts = {"device": device, "threads": str(chosen.threads), "date": time.strftime("%Y-%m-%d")}
    facts |= measure.versions(chosen.device)
    out = chosen.out or folder(device)
    print(f"On {where}.", flush=True)

    rows: list[Row] = []
    settings = itertools.product(chosen.batch, chosen.layout, chosen.dtype, chosen.backend)
    for batch, layout, dtype, backend in settings:
        setting = Setting(
            batch, layout, dtype, backend, chosen.device, chosen.seconds, chosen.against
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
