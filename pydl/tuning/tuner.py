"""Who is fastest at a call: every backend that can serve it, in turns."""

import dataclasses
from collections.abc import Callable, Mapping

import torch
from torch.utils._pytree import tree_flatten

from pydl import dispatch, measure
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
        clock: Callable[..., Mapping[str, measure.Times]] = measure.interleave,
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
        times: Mapping[str, measure.Times] = {}
        if len(actions) > 1:
            times = self.clock(actions, device=device, seconds=self.seconds, rounds=(5, 100))
        best = _best(times) if times else next(iter(actions), "aten")
        statistic = "median" if device.type == "cuda" else "minimum"
        took = {name: 1e6 * getattr(one, statistic) for name, one in times.items()}
        choices: list[Choice] = []
        # By another backend the call may ask more: who serves its backward.
        while questions and len(choices) < 8:
            for family, _, key in questions:
                if (family, key) not in [(one.family, one.key) for one in choices]:
                    choices.append(Choice(family, key, best, took, left_out))
                    dispatch.remember(family, key, best)
            questions = call.questions()
        if self.keep is not None and took:
            for choice in choices:
                self.keep(choice)
        return choices


def _best(times: Mapping[str, measure.Times]) -> str:
    """The fastest, but PyTorch's own unless that loses by more than the noise."""
    fastest = min(times, key=lambda name: times[name].minimum)
    if "aten" in times and not wins(times[fastest], times["aten"]):
        return "aten"
    return fastest


def noise(times: measure.Times) -> float:
    """How far the minimum of these samples may be from that of others: what a fifth of the samples
    stay within."""
    return times.p20 / times.minimum - 1


def wins(ours: measure.Times, theirs: measure.Times) -> bool:
    """Whether ours is faster by more than the noise in either."""
    return theirs.minimum / ours.minimum > 1 + max(0.02, noise(ours), noise(theirs))
