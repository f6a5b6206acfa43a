"""Who computes, and what part of the time that is: by the kind of layer, of a run of a network, or
by the family of operators, of a step of training."""

import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from pydl.backends import FAMILY_OF
from pydl.models.record import Ran, watch
from pydl.visualize.operators import servers

# Operators name themselves so for the profiler (pydl/ops/registry.py).
_NAME = re.compile(r"pydl::(\w+) \((\w+)\)")
_PYTORCH = ("aten", "reference")
_STEP = "pydl: a step"


@dataclass(frozen=True)
class Share:
    """What of one sort one backend computes."""

    what: str  # a kind of layer, or a family of operators
    backend: str
    count: int  # of layers, or of calls
    part: float  # of the time

    def __str__(self) -> str:
        return f"{self.what} {100 * self.part:.1f} % ({self.count})"


def of_layers(model: nn.Module, x: torch.Tensor) -> list[Share]:
    """Where the time of a run of ``model`` on ``x`` without gradients goes: kinds of layers, by who
    serves them (``torch.nn`` where that is no layer of this package), the longest first. What is
    called outside of layers has no part in it. Of the quickest of three runs."""
    with torch.no_grad():
        served_by = servers(model, x)  # and the first run, which is slower
        best = min((_timed(model, x) for _ in range(3)), key=lambda took: sum(took.values()))
    found: dict[tuple[str, str], list[float]] = {}
    for (key, kind), seconds in best.items():
        found.setdefault((kind, served_by.get(key, "torch.nn")), []).append(seconds)
    whole = sum(best.values())
    return _longest_first(
        Share(*which, len(each), sum(each) / whole) for which, each in found.items()
    )


def of_families(step: Callable[[], object], *, steps: int = 7) -> list[Share]:
    """What part of a step's time on the CPU this package's own kernels take, forward and backward,
    the largest first; the rest is PyTorch's.

    Args:
        step: such as one of training; run once before, unobserved.
        steps: how many are observed. Medians count, of the step and of each family's calls in it:
            other programs that the system runs meanwhile fall into any of them.
    """
    step()
    with profile(activities=[ProfilerActivity.CPU]) as observed:
        for _ in range(steps):
            with record_function(_STEP):
                step()
    events = observed.events()
    whole = [event for event in events if event.name == _STEP]
    begins = [event.time_range.start for event in whole]
    taken: dict[tuple[str, str], list[list[float]]] = {}  # by step, of each call
    for event in events:
        named = _NAME.fullmatch(event.name)
        if named and named[2] not in _PYTORCH:
            served = FAMILY_OF[named[1]], named[2]
            calls = taken.setdefault(served, [[] for _ in whole])
            calls[bisect_right(begins, event.time_range.start) - 1].append(event.cpu_time_total)
    usual = median(event.cpu_time_total for event in whole)
    return _longest_first(
        Share(*served, len(calls[0]), median(map(sum, calls)) / usual)
        for served, calls in taken.items()
    )


def together(every: Iterable[Share]) -> float:
    """The part of the time that all of them take."""
    return sum(share.part for share in every)


def _longest_first(every: Iterable[Share]) -> list[Share]:
    return sorted(every, key=lambda share: -share.part)


def _timed(model: nn.Module, x: torch.Tensor) -> dict[tuple[str, str], float]:
    """Seconds of each layer, by its name and kind."""
    began: list[float] = []
    took: dict[tuple[str, str], float] = {}

    def before(ran: Ran) -> None:
        began.append(_now(x.device))

    def after(ran: Ran) -> None:
        took[ran.key, type(ran.layer).__name__] = _now(x.device) - began.pop()

    with watch(model, before=before, after=after):
        model(x)
    return took


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
