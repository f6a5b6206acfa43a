"""Who is fastest at a call: every backend that can serve it, in turns."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import torch
from torch.utils._pytree import tree_flatten

from pydl import dispatch
from pydl.measure import Action, Times, interleave
from pydl.tuning.call import Call
from pydl.tuning.misses import servers

# Its results are random and, by PyTorch's operator, others than by the reference.
_RANDOM = ("dropout",)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What was found out about one call."""

    family: str
    key: dispatch.Key
    backend: str  # the fastest
    microseconds: Mapping[str, float]  # of every backend that was measured
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)  # and why

    @property
    def ratio(self) -> float | None:
        """PyTorch's time over that of the fastest; None where PyTorch has no such operator."""
        theirs = self.microseconds.get("aten")
        return None if theirs is None else theirs / self.microseconds[self.backend]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.key.shape)


class Tuner:
    """Measures calls and remembers what it found.

    Args:
        seconds: how long to measure all backends of a call together, roughly.
        keep: what to do with each :class:`Choice`.
        clock: times callables in turns, as :func:`pydl.measure.interleave` does.
    """

    def __init__(
        self,
        seconds: float = 0.05,
        keep: Callable[[Choice], None] | None = None,
        clock: Callable[..., Mapping[str, Times]] = interleave,
    ) -> None:
        self.seconds, self.keep, self.clock = seconds, keep, clock

    def measure(self, function: Callable[..., object], args: tuple, kwargs: dict) -> list[Choice]:
        """Measures one call, and remembers who is to serve the questions that it asks."""
        leaves = tree_flatten((args, kwargs))[0]
        devices = {one.device for one in leaves if isinstance(one, torch.Tensor) and one.is_cuda}
        with torch.random.fork_rng(devices=list(devices)):
            return self._measure(Call(function, args, kwargs))

    def _measure(self, call: Call) -> list[Choice]:
        questions = call.questions()
        if not questions:
            return []
        device = questions[0][1].device
        able = [servers(family, tensor) for family, tensor, _ in questions]
        everyone = [one for one in able[0] if all(one in others for others in able)]
        left_out: dict[str, str] = {}
        actions = call.actions(everyone, left_out, any(f in _RANDOM for f, *_ in questions))
        times: Mapping[str, Times] = {}
        if len(actions) > 1:
            times = self._times(actions, device)
        best = _best(times) if times else next(iter(actions), "aten")
        others = {name: time for name, time in times.items() if name != "aten"}
        ours = _fastest(others) if others else best
        passes = _settle(call, ours)
        choices = [Choice(*one, best, _microseconds(times, device), left_out) for one in passes]
        if times and len(passes) > 1:
            choices = self._apart(call, choices, ours, actions, device)
        for one in choices:
            dispatch.remember(one.family, one.key, one.backend)
            if self.keep is not None and times:
                self.keep(one)
        return choices

    def _apart(
        self,
        call: Call,
        choices: list[Choice],
        ours: str,
        actions: Mapping[str, Action],
        device: torch.device,
    ) -> list[Choice]:
        """Each pass of a call by whoever is fastest at it: the times of the call with the other
        passes as they are, ``ours`` or what was found before. PyTorch's own in all of them where
        that comes to no less."""
        found = []
        for one in choices:

            def with_pass_by(server: str, one: Choice = one) -> object:
                dispatch.remember(one.family, one.key, server)
                return call.run("auto")

            tried = {name: functools.partial(with_pass_by, name) for name in actions}
            times = self._times(tried, device)
            one = dataclasses.replace(
                one, backend=_best(times), microseconds=_microseconds(times, device)
            )
            dispatch.remember(one.family, one.key, one.backend)
            found.append(one)
        if "aten" in actions:
            both: dict[str, Action] = {
                "aten": actions["aten"],
                ours: functools.partial(call.run, "auto"),
            }
            if _best(self._times(both, device)) == "aten":
                return [dataclasses.replace(one, backend="aten") for one in choices]
        return found

    def _times(self, actions: Mapping[str, Action], device: torch.device) -> Mapping[str, Times]:
        return self.clock(actions, device=device, seconds=self.seconds, rounds=(5, 100))


def _settle(call: Call, server: str) -> list[tuple[str, dispatch.Key]]:
    """Gives all passes of a call to this server; returns them, in the order in which it asks. By
    our kernels it asks more than by PyTorch's: who serves its backward."""
    settled: dict[tuple[str, dispatch.Key], None] = {}
    while (questions := call.questions()) and len(settled) < 8:
        for family, _, key in questions:
            settled[family, key] = None
            dispatch.remember(family, key, server)
    return list(settled)


def _microseconds(times: Mapping[str, Times], device: torch.device) -> dict[str, float]:
    statistic = "median" if device.type == "cuda" else "minimum"
    return {name: 1e6 * getattr(one, statistic) for name, one in times.items()}


def _fastest(times: Mapping[str, Times]) -> str:
    return min(times, key=lambda name: times[name].minimum)


def _best(times: Mapping[str, Times]) -> str:
    """The fastest, but PyTorch's own unless that loses by more than the noise."""
    fastest = _fastest(times)
    if "aten" in times and not wins(times[fastest], times["aten"]):
        return "aten"
    return fastest


def noise(times: Times) -> float:
    """How far the minimum of these samples may be from that of others: what a fifth of the samples
    stay within."""
    return times.p20 / times.minimum - 1


def wins(ours: Times, theirs: Times) -> bool:
    """Whether ours is faster by more than the noise in either."""
    return theirs.minimum / ours.minimum > 1 + max(0.02, noise(ours), noise(theirs))
