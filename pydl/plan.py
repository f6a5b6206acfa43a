"""Launch plans: what a call came to before, so that it can be done again without finding out.

Between a call and its kernel lies Python: arguments are checked, a backend is chosen, shapes and
layouts of results are worked out, an operator is dispatched, a kernel's arguments are bound. For
the same function, shapes, strides, dtypes, devices, alignment and constants all of that comes to
the same every time. So what it came to is kept: which results are allocated, which functions are
called with which arguments, what is returned. Each public function has such plans, from its
arguments to the launch. Where a gradient is wanted the plan has a Function in it, whose forward and
backward go by plans in turn (pydl/ops/derivatives.py). Each operator has plans too, for what calls
it alone.

A plan is not written, it is recorded (pydl/recorder.py). Whatever a call does goes through
:func:`step` (PyTorch's own operator, an ``autograd.Function``), :func:`launch` or
:func:`allocated`, or is a view or a copy.
Whatever else it does to a tensor than to look at its geometry, and be it to read one number of it,
leaves it without a plan, and so does an argument or a result that is neither one of the call's
tensors nor made of them in these ways. So a call whose way depends on what is in a tensor goes the
whole way each time; so does one that raises.

A call is recorded when it comes the second time. All plans are forgotten when a table, a
measurement, a backend or the instruction set changes. Settings of PyTorch are in the key (grad
mode, autocast, threads) or compared at each call (:func:`setting`). The key of the call that is
expected is not made: PyTorch's guards tell whether it is this one (pydl/call_key.py). While
torch.func, forward mode, a mode of dispatch, a trace or the profiler watches, calls go the whole
way, for it to be seen; ``torch.compile`` never comes here.
"""

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from torch.compiler import is_compiling

from pydl.call_key import guard, key_of
from pydl.recorder import STALE, Function, Recorder, recorders

Result = TypeVar("Result")

LIMIT = 512  # calls of one function that are known; the oldest goes first
_SEEN, _WITHOUT = object(), object()  # instead of a plan: it came once; it has none

_observers = 0  # blocks of observed() that the process is in
# Why calls that are PyTorch's may not leave to it at once, where nothing would see them: somebody
# observes, some calls are known exactly, or a block of use_backend was entered in this process,
# from when on each call asks whether it is in one.
awake: set[str] = set()
BLOCKS = frozenset({"use_backend"})
_lock = threading.Lock()
_generation = object()  # of plans: those of an earlier one rest on what has changed
current: object | None = _generation  # the same; None while somebody observes
_everyone: weakref.WeakSet["Plans"] = weakref.WeakSet()


def forget() -> None:
    """Forgets all plans: something that they rest on has changed."""
    global _generation, current
    with _lock:
        _generation = object()
        current = None if _observers else _generation
        for plans in _everyone:
            plans.forget()


@contextlib.contextmanager
def observed() -> Iterator[None]:
    """Lets every call go the whole way inside the ``with`` block, for somebody to see it there."""
    global _observers, current
    with _lock:
        _observers += 1
        current = None
        awake.add("observed")
    try:
        yield
    finally:
        with _lock:
            _observers -= 1
            if not _observers:
                current = _generation
                awake.discard("observed")


def recording() -> Recorder | None:
    """What records the call that this thread is in."""
    return None if is_compiling() else recorders.get(threading.get_ident())


def step(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """``function(*arguments, **named)``, which a plan is to call again."""
    recorder = recording()
    if recorder is None:
        return function(*arguments, **named)
    result = recorder.quietly(function, *arguments, **named)
    recorder.note(function, arguments, named, result)
    return result


def launch(
    function: Function, keep: Function | None, arguments: tuple, where: int, start: Any
) -> None:
    """A kernel's launch, which a plan is to do again: ``start(function, *arguments)``, or
    ``function(*arguments, where)`` where there is no ``start``.

    Args:
        keep: of the extension (csrc/bindings/launch.h): gives what does that again, and takes
            nothing but memory; None: there is no such function.
        start: its method ``bound`` gives what starts such a launch as it does a function.
    """
    how = (function, *arguments, where) if start is None else (start, function, *arguments)
    recorder = recording()
    if recorder is None or keep is None:
        step(*how)
    else:
        recorder.quietly(*how)
        recorder.launched(keep, arguments, where, start)


def allocated(result: torch.Tensor) -> torch.Tensor:
    """``result``, unwritten, the like of which a plan is to allocate again."""
    recorder = recording()
    if recorder is not None:
        recorder.allocated(result)
    return result


def setting(read: Callable[[], Result]) -> Result:
    """``read()``, a setting outside of this package: a plan holds while it is the same."""
    recorder, value = recording(), read()
    if recorder is not None:
        recorder.depends(read, value)
    return value


def geometry(function: Callable[..., Result], *arguments: Any) -> Result:
    """``function(*arguments)``, which looks at nothing of a tensor but its geometry."""
    recorder = recording()
    return function(*arguments) if recorder is None else recorder.quietly(function, *arguments)


def never() -> None:
    """The call has an effect that no plan repeats."""
    recorder = recording()
    if recorder is not None:
        recorder.fail()


class Plans:
    """A function and the plans of its calls.

    Args:
        function: is called where there is no plan, and recorded.
        whole: is called in its place where it is not for a plan to decide what becomes of a call:
            something watches, or an argument is not of a plain type.
        checked: whether the types of its constants have been, which are then not asked again.
    """

    def __init__(
        self, function: Function, whole: Function | None = None, checked: bool = False
    ) -> None:
        self.function, self.whole, self.checked = function, whole or function, checked
        self.known: dict[Hashable, Any] = {}
        self.last = _none_yet()  # that served
        with _lock:
            _everyone.add(self)

    def forget(self) -> None:
        self.known.clear()
        self.last = _none_yet()

    def call(self, args: tuple, kwargs: dict[str, Any], surroundings: Hashable = None) -> Any:
        """``function(*args, **kwargs)``, by its plan where there is one.

        Args:
            surroundings: what else decides on the call, beyond its arguments and PyTorch's state.
        """
        result = self.likely(args, kwargs, surroundings)
        return self.by_key(args, kwargs, surroundings) if result is STALE else result

    def likely(self, args: tuple, kwargs: dict[str, Any], surroundings: Hashable) -> Any:
        """The same where this call is one of the two that are expected; else STALE."""
        form, last = (surroundings, len(args), *kwargs), self.last
        plan = last.next
        if plan.form == form:
            result = plan.run_if_it_fits(*args, *kwargs.values())
            if result is not STALE:
                self.last = plan
                return result
        plan = last.other
        if plan.form == form:
            result = plan.run_if_it_fits(*args, *kwargs.values())
            if result is not STALE:
                last.next, last.other = plan, last.next
                self.last = plan
                return result
        return STALE

    def by_key(self, args: tuple, kwargs: dict[str, Any], surroundings: Hashable) -> Any:
        """The same where it is another."""
        if recorders and recording():
            return self.function(*args, **kwargs)
        if current is None:
            return self.whole(*args, **kwargs)
        given = (*args, *kwargs.values()) if kwargs else args
        try:
            key = key_of(given, tuple(kwargs), surroundings, self.checked)
            known: Any = None if key is None else self.known.get(key)
        except (TypeError, RuntimeError):  # a list in a list; a tensor without strides or memory
            key = None
        if key is None:
            return self.whole(*args, **kwargs)
        if known is None:
            self._keep(key, _SEEN, _generation)
        elif known is _SEEN:
            return self._record(key, args, kwargs, surroundings, given)
        elif known is not _WITHOUT:
            result = known.run(*given)
            if result is not STALE:
                last, self.last = self.last, known
                last.next, last.other = known, last.next
                return result
            self._keep(key, _SEEN, _generation)
        return self.function(*args, **kwargs)

    def _record(
        self,
        key: Hashable,
        args: tuple,
        kwargs: dict[str, Any],
        surroundings: Hashable,
        given: tuple,
    ) -> Any:
        generation, recorder = _generation, Recorder(given)
        if recorder.failed:  # because of these very tensors, not of their key
            return self.function(*args, **kwargs)
        result, run = recorder.record(self.function, args, kwargs)
        what: object = _WITHOUT
        if run is not None:
            condition, values = guard(given)
            # First: what is recorded must not see the plans of its parts look at their arguments.
            condition = f"not recorders and here.current is generation and {condition}"
            values |= {"here": sys.modules[__name__], "generation": generation}
            fitting = recorder.guarded(condition, values | {"recorders": recorders})
            what = Plan((surroundings, len(args), *kwargs), run, fitting)
        self._keep(key, what, generation)
        return result

    def _keep(self, key: Hashable, what: object, generation: object) -> None:
        with _lock:
            if generation is not _generation:
                return
            gone = self.known.get(key)
            if gone is None and len(self.known) >= LIMIT:
                gone = self.known.pop(next(iter(self.known)))
            self.known[key] = what
        if isinstance(gone, Plan):
            gone.leave()


class Plan:
    """What a call comes to.

    Args:
        form: the call's surroundings, how many arguments have no name, the names of the others.
        run: does all of it again.
        run_if_it_fits: does so if it tells by the arguments that a call of this form has the key
            of the plan, or returns STALE.
    """

    __slots__ = ("form", "next", "other", "run", "run_if_it_fits")

    def __init__(self, form: tuple, run: Function, run_if_it_fits: Function) -> None:
        self.form, self.run, self.run_if_it_fits = form, run, run_if_it_fits
        # What came after it the last time and, of others, the last but one, which most likely do
        # again: a network's layers have an order, and where two are alike one plan serves both.
        # They are asked before the key, which takes three times as long.
        self.next = self.other = self

    def leave(self) -> None:
        """Serves nothing and keeps nothing any more; others may still have it for their next."""
        self.run = self.run_if_it_fits = _stale
        self.next = self.other = self


def _none_yet() -> Plan:
    """In the place of the plan that served last: its next one, itself, serves nothing."""
    return Plan((), _stale, _stale)


def _stale(*given: Any) -> object:
    return STALE


class Part:
    """A function that is a part of planned calls which are alike, and its one plan.

    Attributes:
        again: the plan; returns STALE where it has to be recorded.
    """

    def __init__(self, function: Function) -> None:
        self._function = function
        self.again: Function = _stale

    def recorded(self, given: tuple) -> Any:
        """The call, the whole way, and its plan from now on."""
        recorder = Recorder(given)
        if recorder.failed:
            return self._function(*given)
        result, run = recorder.record(self._function, given, {})
        self.again = run or self._function
        return result
