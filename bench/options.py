"""What the benchmarks' command lines share, and how a process is set up by them."""

import argparse
import fnmatch
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

# Read when PyTorch is imported: what it would do on a processor without AVX-512. What it compiles
# for AVX2 is wrong where the compiler may use AVX-512.
if "--isa=avx2" in sys.argv:
    os.environ |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    os.environ["TORCHINDUCTOR_CPP_MARCH"] = "x86-64-v3"

import torch
from results import RESULTS, folder

from pydl import dispatch, measure, native

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


def add_to(parser: argparse.ArgumentParser, whose: str) -> None:
    """The options that every benchmark has; a batch is ``whose`` own where none is given."""
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
        "--out", type=Path, metavar="DIR", help="default: bench/results/<kind of CPU, name of GPU>"
    )


def add_isa_to(parser: argparse.ArgumentParser) -> None:
    """The instruction set; as ``--isa=avx2`` this module holds PyTorch to it too."""
    parser.add_argument(
        "--isa",
        choices=("avx512", "avx2", "baseline"),
        help="hold the CPU kernels, and as --isa=avx2 PyTorch too, to this instruction set",
    )


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
    if chosen.isa:
        native.use_isa(chosen.isa)
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
    kind = RESULTS / dispatch.machine() if chosen.device == "cpu" else folder(device)
    return where, facts, kind
