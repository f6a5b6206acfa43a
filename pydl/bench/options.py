"""What the benchmarks' command lines share, and how a process is set up by them."""

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from pydl import dispatch, measure, native
from pydl.bench.results import folder

# What PyTorch would do on a processor without AVX-512, MKL's products among it. What it compiles
# for AVX2 is wrong where the compiler may use AVX-512.
HELD_TO_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Thing = TypeVar("Thing", bound=_Named)


def choices(accepted: Sequence[str]) -> Callable[[str], list[str]]:
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


def matching(things: Iterable[Thing], pattern: str, what: str) -> list[Thing]:
    """Those whose names match any of the patterns (``*`` and ``?``, separated by commas).

    Raises:
        ValueError: none does; the message says ``what`` they are and lists them all.
    """
    things, patterns = list(things), pattern.split(",")
    found = [one for one in things if any(fnmatch.fnmatchcase(one.name, p) for p in patterns)]
    if not found:
        names = ", ".join(one.name for one in things)
        raise ValueError(f"no {what} matches {pattern!r}; there are {names}")
    return found


def add_to(parser: argparse.ArgumentParser, whose: str, results: Path) -> None:
    """The options that every benchmark has; a batch is ``whose`` own where none is given, and files
    go to a folder of ``results`` where none is named."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--batch",
        type=_batches,
        default=[None],
        metavar="N,...",
        help=f"images (default: each {whose}'s own)",
    )
    add_isa_to(parser)
    parser.add_argument(
        "--threads", type=int, default=1, help="CPU threads; with 1 the process is pinned to a core"
    )
    parser.add_argument(
        "--layout",
        type=choices(list(LAYOUTS)),
        default=["nchw"],
        metavar="LAYOUT,...",
        help=", ".join(LAYOUTS),
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="how long to measure each row, roughly"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="measure stock PyTorch under torch.compile too, in float32",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where the files go (default: {_from_here(results)}/<kind of CPU, name of GPU>)",
    )
    parser.set_defaults(results=results)


def _from_here(folder: Path) -> Path:
    """As somebody in the current directory calls it, if it is below."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def add_isa_to(parser: argparse.ArgumentParser) -> None:
    """The instruction set, for :func:`hold_to`."""
    parser.add_argument(
        "--isa",
        choices=("avx512", "avx2", "baseline"),
        help="hold the CPU kernels, and to avx2 PyTorch too, to this instruction set",
    )


def hold_to(isa: str | None) -> None:
    """Holds the CPU kernels, and to AVX2 PyTorch too, to an instruction set. PyTorch reads its part
    once, at its first call, so the process begins anew with it."""
    if isa == "avx2" and not HELD_TO_AVX2.items() <= os.environ.items():
        os.execve(sys.executable, sys.orig_argv, os.environ | HELD_TO_AVX2)
    if isa:
        native.use_isa(isa)


def check(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """Ends with the parser's error where a shared option cannot be met."""
    if chosen.threads < 1:
        parser.error("--threads must be at least 1")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but PyTorch sees no CUDA device")


def set_up(chosen: argparse.Namespace) -> tuple[str, dict[str, str], Path]:
    """Threads, the core, PyTorch's settings and seed, as a figure is measured with; says so.

    Returns:
        The device and how it is used, in words; the columns that are the same for all rows; where
        the results go.
    """
    core = None
    hold_to(chosen.isa)
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
    print(f"On {where}.", flush=True)
    if chosen.out is not None:
        return where, facts, chosen.out
    kind = dispatch.machine() if chosen.device == "cpu" else folder(device)
    return where, facts, chosen.results / kind
