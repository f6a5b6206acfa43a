"""Who serves the calls of a step, and what part of the step's time that takes."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from pydl.backends import FAMILY_OF

# Operators name themselves so for the profiler (pydl/ops/registry.py).
_NAME = re.compile(r"pydl::(\w+) \((\w+)\)")
_PYTORCH = ("aten", "reference")
_STEP = "pydl: a step"


@dataclass(frozen=True)
class Share:
    """The calls of one family that one backend served, forward and backward."""

    family: str
    backend: str
    calls: int  # of a step
    part: float  # of the step's time

    def __str__(self) -> str:
        return f"{self.family} {100 * self.part:.1f} % ({self.calls})"


def shares(step: Callable[[], object], *, steps: int = 7) -> list[Share]:
    """The shares of a step's time on the CPU that this package's own kernels take, the largest
    first; the rest is PyTorch's.

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
    every = [
        Share(*served, len(calls[0]), median(map(sum, calls)) / usual)
        for served, calls in taken.items()
    ]
    return sorted(every, key=lambda share: -share.part)


def together(every: Iterable[Share]) -> float:
    """The part of the time that all of them take."""
    return sum(share.part for share in every)
