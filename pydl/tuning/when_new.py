"""Measures a call where it is made, the first time that ``auto`` is asked about it.

``choose`` finds that it does not know the call and raises; the function that was called catches
that (:func:`measured_when_new`), has every backend measured, and goes on.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch

from pydl import dispatch
from pydl.tuning.call import servers
from pydl.tuning.tuner import Tuner

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Whether this thread is inside a call that :func:`measured_first` can make again.
_here = threading.local()


class _Unmeasured(Exception):
    """The call is to be measured before it is served."""


def measured_when_new(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """For whatever users call that asks ``backends.choose``: measures a call that ``auto`` does not
    know, while it is to be so."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if dispatch.on_miss is None or torch.compiler.is_compiling():
            return function(*args, **kwargs)
        return measured_first(function, args, kwargs)

    return call


def measured_first(function: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """The call, measured first if ``auto`` does not know it."""
    before, _here.may_stop = getattr(_here, "may_stop", False), True
    try:
        return function(*args, **kwargs)
    except _Unmeasured:
        pass
    finally:
        _here.may_stop = before
    assert _tuner is not None
    with dispatch.watched(None):
        _tuner.measure(function, args, kwargs)
        return function(*args, **kwargs)


def _unknown(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
    captured = tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    may_stop = getattr(_here, "may_stop", False) and not captured
    if may_stop and len(servers(family, tensor)) > 1:
        raise _Unmeasured


_tuner: Tuner | None = None


def benchmark(on: bool) -> None:
    """Whether each call that ``auto`` does not know is measured first (``pydl.benchmark``)."""
    global _tuner
    _tuner = Tuner() if on else None
    dispatch.watch(_unknown if on else None)


def benchmarking() -> bool:
    return _tuner is not None


@contextlib.contextmanager
def measuring(tuner: Tuner) -> Iterator[None]:
    """Measures calls that are not known, by this tuner."""
    global _tuner
    before, _tuner = _tuner, tuner
    try:
        with dispatch.watched(_unknown):
            yield
    finally:
        _tuner = before
