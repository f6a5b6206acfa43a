"""How a case is measured: checked against the float64 reference, then timed in turns with PyTorch.

``pydl bench`` and ``bench/test_speed.py`` are two ways in; everything that decides a figure is
here.
"""

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pydl import backends, measure
from pydl.bench.cases import Case
from pydl.bench.options import LAYOUTS
from pydl.bench.row import Row
from pydl.models.calls import Call, Check, check, served

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}


@dataclass(frozen=True)
class Setting:
    """How a case is run."""

    batch: int | None = None  # None: the case's own
    layout: str = "nchw"
    dtype: str = "float32"
    backend: str = "auto"
    device: str = "cpu"
    seconds: float = 1.0
    compile: bool = False  # measure PyTorch under torch.compile too


def wrong(checks: Sequence[Check]) -> str:
    """Which results are further off than allowed, in words; empty where none is."""
    return "; ".join(
        f"{row.result} off by {row.ours:.1e}, bound {row.bound:.1e}"
        for row in checks
        if not row.passed
    )


class NotServedError(RuntimeError):
    """The backend that was asked for does not serve the case; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A case in one setting, checked and ready to be timed."""

    call: Call
    setting: Setting
    tensors: Sequence[torch.Tensor]
    grad: torch.Tensor | None
    serving: str  # the backend that ran, as observed
    checks: Sequence[Check]

    @property
    def wrong(self) -> str:
        """Which results are further off than allowed, in words; empty where none is."""
        return wrong(self.checks)

    def ours(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The output by the backend of the setting."""
        return self.call.ours(tensors, self.setting.backend)

    def actions(self, kind: str) -> dict[str, measure.Action]:
        """One pass by ``ours`` and by ``theirs``, and one ``copy`` of the input."""
        return {
            "ours": self.call.runner(kind, self.ours, self.tensors, self.grad),
            "theirs": self.call.runner(kind, self.call.theirs, self.tensors, self.grad),
            "copy": measure.copier(self.tensors[0]),
        }

    def compiled(self, kind: str) -> measure.Action:
        """One pass by PyTorch under ``torch.compile``, which has compiled it.

        Raises:
            AssertionError: its results are not those of PyTorch as it comes.
        """
        theirs = compiled(self.call.theirs)
        action = self.call.runner(kind, theirs, self.tensors, self.grad)
        action()
        if self.call.operator != "dropout":  # drawn in another order when compiled
            grad = self.grad if kind == "both" else None
            found, expected = (
                self.call.results(run, self.tensors, grad) for run in (theirs, self.call.theirs)
            )
            torch.testing.assert_close(found, expected)
        return action


def compiled(function: Callable) -> Callable:
    """``function`` under ``torch.compile``, for the shapes that it is called with; what was
    compiled before is forgotten."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def prepare(case: Case, setting: Setting) -> Prepared:
    """Runs a case once in each direction and compares it with the reference.

    Raises:
        NotServedError: the backend that the setting names does not serve it.
        AssertionError: another backend than the one named served it, or more than one.
    """
    call = case.call(setting.batch)
    tensors = call.random(
        device=setting.device,
        dtype=DTYPES[setting.dtype],
        memory_format=LAYOUTS[setting.layout],
        seed=1,
    )
    if setting.backend != "auto":
        refusal = backends.refusal(setting.backend, case.family, tensors[0])
        if refusal is not None:
            raise NotServedError(refusal)
    y = call.theirs(tensors)
    grad = torch.empty_like(y).normal_() if y.is_floating_point() else None
    serving = observe(call, tensors, grad, setting.backend)
    checks = check(call, tensors, grad, backend=setting.backend)
    return Prepared(call, setting, tensors, grad, serving, checks)


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


def measure_case(case: Case, passes: Sequence[str], setting: Setting) -> Iterator[Row]:
    """A row for each pass that the case has: checked, then timed.

    A case that is not served, is wrong or breaks gives rows that say so, without times.
    """
    call = case.call(setting.batch)
    passes = [one for one in passes if one in call.passes]
    arguments = call.arguments if call.boxes is None else {"boxes": call.boxes, **call.arguments}
    blank: dict[str, Any] = {
        "case": case.name,
        "operator": case.operator,
        "shape": "x".join(map(str, call.input)),
        "weight": "x".join(map(str, call.weight or ())),
        "arguments": " ".join(f"{key}={value}" for key, value in arguments.items()),
        "layout": setting.layout,
        "dtype": setting.dtype,
        "asked": setting.backend,
        "ratio_of": "median" if setting.device == "cuda" else "minimum",
    }
    try:
        prepared = prepare(case, setting)
    except NotServedError as refusal:
        for one in passes:
            yield Row(**blank, kind=one, status="not served", detail=str(refusal))
        return
    except Exception as error:
        message = said(error)
        for one in passes:
            yield Row(**blank, kind=one, status="broken", detail=message)
        return
    for one in passes:
        row = Row(
            **blank,
            kind=one,
            backend=prepared.serving,
            status="wrong" if prepared.wrong else "ok",
            detail=prepared.wrong,
            error_ours=max(row.ours for row in prepared.checks),
            error_theirs=max(row.theirs for row in prepared.checks),
            goal=_goal(case, one, setting),
        )
        if row.status == "ok":
            try:
                _time(row, prepared)
            except Exception as error:
                row.status, row.detail = "broken", said(error)
        yield row


def said(error: Exception) -> str:
    """The error's first line, after all of it has been printed."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _goal(case: Case, kind: str, setting: Setting) -> float | None:
    own = Setting(seconds=setting.seconds, backend=setting.backend, compile=setting.compile)
    return case.goal.get(kind) if setting == own and torch.get_num_threads() == 1 else None


def _time(row: Row, prepared: Prepared) -> None:
    setting = prepared.setting
    if row.kind == "both":
        row.kept_ours, row.kept_theirs = (
            prepared.call.kept(run, prepared.tensors)
            for run in (prepared.ours, prepared.call.theirs)
        )
    actions = prepared.actions(row.kind)
    if setting.device == "cuda":
        row.kernels_ours, row.kernels_theirs = (kernels(actions[who]) for who in ("ours", "theirs"))
    if setting.compile and setting.dtype == "float32" and row.kind in ("forward", "both"):
        try:
            actions["compiled"] = prepared.compiled(row.kind)
        except Exception as error:  # theirs, so the row stands without it
            row.detail = f"torch.compile: {said(error)}"
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
