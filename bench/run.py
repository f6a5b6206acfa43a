"""The benchmark: ``python bench/run.py`` measures the operators of this checkout against stock
PyTorch.

Every row is checked against the float64 reference before it is timed, and who served it is
observed, not assumed. Ours, theirs and one copy of the input are timed in turns in one process (see
``pydl.measure``). On a CPU with one thread the process is pinned to one core. Files are brought up
to date after every case, so a run that is ended leaves what it has measured. Needs nothing beyond
PyTorch and NumPy; with matplotlib there is a plot too.

Exit status: 0 if every check passed, 1 if a case was wrong or broke, 2 for a mistake in the
arguments.
"""

import argparse
import itertools
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is measured is the checkout that this file belongs to

import torch  # noqa: E402
from cases import Case, matching  # noqa: E402
from results import Row, plot, write  # noqa: E402

from pydl import backends, measure  # noqa: E402
from pydl.models.calls import PASSES, Call, check, served  # noqa: E402

LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}
DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}
NAMES = ("auto", *backends.BACKENDS)


@dataclass(frozen=True)
class Setting:
    """How a case is run."""

    batch: int | None
    layout: str
    dtype: str
    backend: str
    device: str
    seconds: float
    against: str = "eager"


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


def measure_case(case: Case, passes: Sequence[str], setting: Setting) -> Iterator[Row]:
    """A row for each pass that the case has: checked, then timed.

    A case that is not served, is wrong or breaks gives rows that say so, without times.
    """
    call = case.call(setting.batch)
    passes = [one for one in passes if one in call.passes]
    arguments = call.arguments if call.boxes is None else {"boxes": call.boxes, **call.arguments}
    blank = {
        "case": case.name,
        "operator": case.operator,
        "shape": "x".join(map(str, call.input)),
        "weight": "x".join(map(str, call.weight or ())),
        "arguments": " ".join(f"{key}={value}" for key, value in arguments.items()),
        "layout": setting.layout,
        "dtype": setting.dtype,
        "asked": setting.backend,
        "against": setting.against,
        "ratio_of": "median" if setting.device == "cuda" else "minimum",
    }
    try:
        tensors = call.random(
            device=setting.device,
            dtype=DTYPES[setting.dtype],
            memory_format=LAYOUTS[setting.layout],
            seed=1,
        )
        if setting.backend != "auto":
            refusal = backends.refusal(setting.backend, case.family, tensors[0])
            if refusal is not None:
                yield from (
                    Row(**blank, kind=one, status="not served", detail=refusal) for one in passes
                )
                return
        y = call.theirs(tensors)
        grad = torch.empty_like(y).normal_() if y.is_floating_point() else None
        serving = observe(call, tensors, grad, setting.backend)
        checks = check(call, tensors, grad, backend=setting.backend)
    except Exception as error:
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        yield from (Row(**blank, kind=one, status="broken", detail=said) for one in passes)
        return
    wrong = [
        f"{row.result} off by {row.ours:.1e}, bound {row.bound:.1e}"
        for row in checks
        if not row.passed
    ]
    for one in passes:
        row = Row(
            **blank,
            kind=one,
            backend=serving,
            status="wrong" if wrong else "ok",
            detail="; ".join(wrong),
            error_ours=max(row.ours for row in checks),
            error_theirs=max(row.theirs for row in checks),
        )
        if not wrong:
            try:
                if one == "both":
                    row.kept_ours, row.kept_theirs = (
                        call.kept(run, tensors)
                        for run in (lambda t: call.ours(t, setting.backend), call.theirs)
                    )
                _time(row, call, tensors, grad, setting)
            except Exception as error:
                traceback.print_exc()
                row.status, row.detail = (
                    "broken",
                    f"{type(error).__name__}: {error}".partition("\n")[0],
                )
        own = (
            setting.device == "cpu"
            and setting.dtype == "float32"
            and setting.layout == "nchw"
            and setting.batch is None
        )
        row.goal = case.goal.get(one) if own and torch.get_num_threads() == 1 else None
        yield row


def observe(
    call: Call, tensors: Sequence[torch.Tensor], grad: torch.Tensor | None, backend: str
) -> str:
    """The backend that serves this call, forward and backward, as observed.

    Raises:
        AssertionError: not the one asked for, or more than one.
    """
    with served() as seen:
        call.results(lambda t: call.ours(t, backend), tensors, grad)
    found = sorted(seen) or ["aten"]
    if len(found) > 1 or backend not in ("auto", found[0]):
        raise AssertionError(f"asked for {backend}, served by {', '.join(found)}")
    return found[0]


def _time(
    row: Row,
    call: Call,
    tensors: Sequence[torch.Tensor],
    grad: torch.Tensor | None,
    setting: Setting,
) -> None:
    theirs = call.theirs
    if setting.against == "compile":
        theirs = torch.compile(call.theirs, dynamic=False)
    actions = {
        "ours": call.runner(row.kind, lambda t: call.ours(t, setting.backend), tensors, grad),
        "theirs": call.runner(row.kind, theirs, tensors, grad),
    }
    if setting.device == "cuda":
        row.kernels_ours, row.kernels_theirs = (kernels(actions[who]) for who in ("ours", "theirs"))
    actions["copy"] = measure.copier(tensors[0])
    row.take(measure.interleave(actions, device=setting.device, seconds=setting.seconds))


def kernels(action: measure.Action, most: int = 4) -> str:
    """Names of the CUDA kernels that ``action`` launches, the longest-running first; empty where
    they cannot be seen."""
    try:
        action()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            action()
            torch.cuda.synchronize()
        events = [
            event
            for event in profile.key_averages()
            if event.device_type == torch.autograd.DeviceType.CUDA
        ]
        events.sort(key=lambda event: -event.self_device_time_total)
        return "; ".join(re.sub(r"<.*|\(.*", "", event.key)[:60] for event in events[:most])
    except (RuntimeError, AttributeError):
        return ""


def folder(device: str) -> str:
    """The name of a device's results: "NVIDIA H200" is h200."""
    return (
        re.sub(r"[^a-z0-9]+", "-", device.lower().removeprefix("nvidia ")).strip("-") or "unknown"
    )


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
    out = chosen.out or ROOT / "bench" / "results" / (
        re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"
    )
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
    plot(rows, where, out, chosen.name)
    bad = [row for row in rows if row.status in ("wrong", "broken")]
    print(f"{len(rows)} rows, {len(bad)} wrong or broken; {out / chosen.name}.csv, .md")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
