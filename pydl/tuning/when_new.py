"""Measures a call where it is made, the first time that ``auto`` is asked about it.

``choose`` finds that it does not know the call and raises; the function that was called catches
that (:func:`measured_when_new`), has every backend measured, and goes on.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from torch.compiler import is_compiling

from pydl import dispatch
from pydl.tuning.misses import Unmeasured, here, noting, watch
from pydl.tuning.tuner import Tuner

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def measured_when_new(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """For whatever users call that asks ``backends.choose``: measures a call that ``auto`` does not
    know, while it is to be so."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if dispatch.on_miss is None or is_compiling():
            return function(*args, **kwargs)
        return measured_first(function, args, kwargs)

    return call


def measured_first(function: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
    """The call, measured first if ``auto`` does not know it."""
    tuner = getattr(_this_thread, "tuner", None) or _benchmark
    if tuner is None or here.note is not None:
        return function(*args, **kwargs)
    before, here.may_stop = here.may_stop, True
    try:
        return function(*args, **kwargs)
    except Unmeasured:
        pass
    finally:
        here.may_stop = before
    with noting(_nothing):
        tuner.measure(function, args, kwargs)
        return function(*args, **kwargs)


def _nothing(*_: object) -> None:
    pass


_this_thread = threading.local()
_benchmark: Tuner | None = None


def benchmark(on: bool) -> None:
    """Whether each call that ``auto`` does not know is measured first (``pydl.benchmark``)."""
    global _benchmark
    if on != benchmarking():
        _benchmark = Tuner() if on else None
        watch(1 if on else -1)


def benchmarking() -> bool:
    return _benchmark is not None


@contextlib.contextmanager
def measuring(tuner: Tuner) -> Iterator[None]:
    """Measures this thread's calls that are not known, by this tuner."""
    before = getattr(_this_thread, "tuner", None)
    _this_thread.tuner = tuner
    watch(1)
    try:
        yield
    finally:
        watch(-1)
        _this_thread.tuner = before
