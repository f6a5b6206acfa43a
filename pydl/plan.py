"""Launch plans: what a call came to before, so that it can be done again without finding out.

Between a call and its kernel lies Python: arguments are checked, a backend is chosen, shapes and
layouts of results are worked out, an operator is dispatched, a kernel's arguments are bound. For
the same function, shapes, strides, dtypes, devices, alignment and constants all of that comes to
the same every time. So what it came to is kept: which results are allocated, which functions are
called with which arguments, what is returned. Each public function has such plans, from its
arguments to the launch, and each operator below autograd, where a backward comes in.

A plan is not written, it is recorded. Whatever a call does goes through :func:`step` (a launch,
PyTorch's own operator, an ``autograd.Function``) or :func:`allocated`, or is a view or a copy.
Whatever else it does to a tensor than to look at its geometry, and be it to read one number of it,
leaves it without a plan, and so does an argument or a result that is neither one of the call's
tensors nor made of them in these ways. So a call whose way depends on what is in a tensor goes the
whole way each time; so does one that raises.

A call is recorded when it comes the second time. All plans are forgotten when a table, a
measurement, a backend or the instruction set changes. Settings of PyTorch are in the key (grad
mode, autocast, threads) or compared at each call (:func:`setting`). While torch.func, forward mode,
a mode of dispatch, a trace or the profiler watches, calls go the whole way, for it to be seen;
``torch.compile`` never comes here.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import CodeType
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.overrides import TorchFunctionMode

Result = TypeVar("Result")
Function = Callable[..., Any]

LIMIT = 512  # calls of one function that are known; the oldest goes first
_MOST_STEPS = 64
_CONSTANTS = {bool, int, float, str, type(None), torch.dtype}
_SEQUENCES = {tuple, list, torch.Size}
_SEEN, _WITHOUT = object(), object()  # instead of a plan: it came once; it has none
_STALE = object()  # instead of a plan's result: a setting has changed

observers = 0  # blocks of observed() that the process is in
# Why calls that are PyTorch's may not leave to it at once, where nothing would see them: somebody
# observes, some calls are known exactly, or a block of use_backend was entered in this process,
# from when on each call asks whether it is in one.
awake: set[str] = set()
BLOCKS = frozenset({"use_backend"})
_lock = threading.Lock()
_generation = 0
_everyone: list["Plans"] = []
_recorders: dict[int, "Recorder"] = {}  # by thread


def forget() -> None:
    """Forgets all plans: something that they rest on has changed."""
    global _generation
    with _lock:
        _generation += 1
        for plans in _everyone:
            plans.known.clear()


@contextlib.contextmanager
def observed() -> Iterator[None]:
    """Lets every call go the whole way inside the ``with`` block, for somebody to see it there."""
    global observers
    with _lock:
        observers += 1
        awake.add("observed")
    try:
        yield
    finally:
        with _lock:
            observers -= 1
            if not observers:
                awake.discard("observed")


def recording() -> "Recorder | None":
    """What records the call that this thread is in."""
    return None if is_compiling() else _recorders.get(threading.get_ident())


def step(function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
    """``function(*arguments, **named)``, which a plan is to call again."""
    recorder = recording()
    if recorder is None:
        return function(*arguments, **named)
    result = recorder.quietly(function, *arguments, **named)
    recorder.note(function, arguments, named, result)
    return result


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
        _everyone.append(self)

    def call(self, args: tuple, kwargs: dict[str, Any], surroundings: Hashable = None) -> Any:
        """``function(*args, **kwargs)``, by its plan where there is one.

        Args:
            surroundings: what else decides on the call, beyond its arguments and PyTorch's state.
        """
        if observers:
            return self.whole(*args, **kwargs)
        if _recorders and recording():
            return self.function(*args, **kwargs)
        given = (*args, *kwargs.values()) if kwargs else args
        try:
            key = _key(given, tuple(kwargs), surroundings, self.checked)
            known: Any = None if key is None else self.known.get(key)
        except (TypeError, RuntimeError):  # a list in a list; a tensor without strides or memory
            key = None
        if key is None:
            return self.whole(*args, **kwargs)
        if known is None:
            self._keep(key, _SEEN, _generation)
        elif known is _SEEN:
            return self._record(key, args, kwargs, given)
        elif known is not _WITHOUT:
            result = known(*given)
            if result is not _STALE:
                return result
            self._keep(key, _SEEN, _generation)
        return self.function(*args, **kwargs)

    def _record(self, key: Hashable, args: tuple, kwargs: dict[str, Any], given: tuple) -> Any:
        generation, recorder = _generation, Recorder(given)
        if recorder.failed:  # because of these very tensors, not of their key
            return self.function(*args, **kwargs)
        thread = threading.get_ident()
        _recorders[thread] = recorder
        try:
            with recorder:
                result = self.function(*args, **kwargs)
                plan = recorder.plan(result)
        finally:
            del _recorders[thread]
        self._keep(key, plan or _WITHOUT, generation)
        return result

    def _keep(self, key: Hashable, what: object, generation: int) -> None:
        with _lock:
            if generation != _generation:
                return
            if len(self.known) >= LIMIT and key not in self.known:
                del self.known[next(iter(self.known))]
            self.known[key] = what


# Looked up once: a key takes 2 us.
_transforms = torch._C._are_functorch_transforms_active
_modes = torch._C._len_torch_dispatch_stack
_profiler = torch.autograd._profiler_enabled
_trace = torch._C._get_tracing_state
_gradients = torch.is_grad_enabled
_threads = torch.get_num_threads
_autocast = torch._C._is_any_autocast_enabled
_Tensor, _Parameter = torch.Tensor, torch.nn.Parameter


def _key(
    given: tuple, names: tuple[str, ...] = (), surroundings: Hashable = None, checked: bool = False
) -> Hashable | None:
    """What decides on a call; None where it is to go the whole way."""
    if _transforms() or _modes() or _profiler() or forward_ad._current_level >= 0 or _trace():
        return None
    key: list[Any] = [surroundings, names, _gradients(), _threads()]
    if _autocast():
        for device in ("cpu", "cuda"):
            key += torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    for one in given:
        kind = type(one)
        if kind is _Tensor or kind is _Parameter:
            if one.is_neg():
                return None
            alignment = one.data_ptr() % 16
            key += one.shape, one.stride(), one.dtype, one.device, one.requires_grad, alignment
        elif kind is float:
            key += kind, one or repr(one)  # 0.0 is not -0.0
        elif kind in _CONSTANTS:
            key += kind, one
        elif kind not in _SEQUENCES:
            return None
        elif checked:
            key.append(tuple(one))
        else:
            kinds = tuple(map(type, one))
            if not _CONSTANTS.issuperset(kinds):
                return None
            key += kind, tuple(one), kinds
    return tuple(key)


# The functions of a tensor that tell its geometry ("__get__" is that of all properties), and those
# whose result is a view, a copy or unwritten, and may be made again.
_GEOMETRY = {
    *("__get__", "size", "stride", "dim", "numel", "ndimension", "element_size", "__len__"),
    *("storage_offset", "untyped_storage", "is_contiguous", "is_floating_point", "is_complex"),
    *("is_neg", "is_conj", "_is_view", "is_same_size"),
}
_REMADE = {
    *("as_strided", "view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "movedim"),
    *("transpose", "t", "narrow", "select", "expand", "__getitem__", "detach"),
    *("resolve_neg", "contiguous", "to", "long", "empty", "empty_like", "new_empty"),
}
_OTHER_PROPERTIES = tuple(vars(torch._C.TensorBase)[name].__get__ for name in ("data", "grad"))


class Recorder(TorchFunctionMode):
    """Writes down what a call does, as the lines of a function. PyTorch tells it of every function
    of a tensor that is called."""

    def __init__(self, given: tuple) -> None:
        super().__init__()
        self.failed = False
        self._is_quiet = False
        self._settings: list[tuple[Callable[[], object], object]] = []
        self._lines: list[tuple[str, str]] = []  # the name of what a line makes, and how
        self._names: dict[int, str] = {}  # of each tensor, by its id
        self._bases: dict[int, tuple[str, torch.Tensor]] = {}  # of each storage, the first tensor
        self._held: list[torch.Tensor] = []  # so that no other gets its id
        self._values: dict[str, object] = {"empty_strided": torch.empty_strided}
        self._parameters = ", ".join(f"a{place}" for place in range(len(given)))
        self._given = [
            (f"a{place}", one) for place, one in enumerate(given) if isinstance(one, torch.Tensor)
        ]
        for name, one in self._given:
            # A view of memory that two of them share could be of either.
            self.failed |= one.untyped_storage()._cdata in self._bases
            self._name(one, name)

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **kwargs or {})
        if not self._is_quiet:
            name = getattr(func, "__name__", None)
            if name in _REMADE:
                self.quietly(self._remade, func, args, kwargs or {}, result)
            else:
                self.failed |= name not in _GEOMETRY or func in _OTHER_PROPERTIES
        return result

    def quietly(self, function: Callable[..., Result], *arguments: Any, **named: Any) -> Result:
        """The call; what happens inside of it is its own."""
        before, self._is_quiet = self._is_quiet, True
        try:
            return function(*arguments, **named)
        finally:
            self._is_quiet = before

    def note(
        self, again: Function, arguments: tuple, named: dict[str, Any], result: object = None
    ) -> None:
        """Lets a plan call ``again`` with these arguments, for the like of ``result``."""
        if not self._is_quiet:
            self.quietly(self._note, again, arguments, named, result)

    def _note(
        self, again: Function, arguments: tuple, named: dict[str, Any], result: object
    ) -> None:
        said = [self._said(one) for one in arguments]
        said += [f"{name}={self._said(one)}" for name, one in named.items()]
        made = f"r{len(self._lines)}"
        self._lines.append((made, f"{self._value(again)}({', '.join(said)})"))
        if isinstance(result, torch.Tensor):
            self._name(result, made)
        elif isinstance(result, tuple):
            for place, one in enumerate(result):
                if isinstance(one, torch.Tensor):
                    self._name(one, f"{made}[{place}]")

    def depends(self, read: Callable[[], object], value: object) -> None:
        """Lets a plan hold only while ``read()`` is ``value``."""
        if not self._is_quiet:
            self._settings.append((read, value))

    def fail(self) -> None:
        """Lets there be no plan."""
        self.failed |= not self._is_quiet

    def allocated(self, result: torch.Tensor) -> None:
        """Lets a plan allocate the like of ``result``."""
        if not self._is_quiet:
            self.quietly(self._allocated, result)

    def _allocated(self, result: torch.Tensor) -> None:
        made, geometry = f"t{len(self._lines)}", f"{tuple(result.shape)}, {result.stride()}"
        kind = result.dtype, result.device
        like = next((name for name, one in self._given if (one.dtype, one.device) == kind), None)
        if like is not None:
            how = f"{like}.new_empty_strided({geometry})"
        else:
            dtype, device = map(self._value, kind)
            how = f"empty_strided({geometry}, dtype={dtype}, device={device})"
        self._lines.append((made, how))
        self._name(result, made)

    def plan(self, result: object) -> Function | None:
        """The function that does all this again and returns the like of ``result``, which the call
        returned; None where there is none."""
        return self.quietly(self._plan, result)

    def _plan(self, result: object) -> Function | None:
        if isinstance(result, tuple):
            returned = f"({' '.join(f'{self._said(one)},' for one in result)})"
            self.failed |= type(result) is not tuple
        else:
            returned = self._said(result)
        wanted, lines = set(_WORD.findall(returned)), [f"return {returned}"]
        for made, text in reversed(self._lines):
            if made in wanted or made.startswith("r"):
                wanted.update(_WORD.findall(text))
                lines.append(f"{made} = {text}" if made in wanted else text)
        if self.failed or len(lines) > _MOST_STEPS:
            return None
        lines += [
            f"if {self._value(read)}() != {self._said(value)}: return {self._value(_STALE)}"
            for read, value in self._settings
        ]
        body = "\n    ".join(reversed(lines))
        exec(_compiled(f"def plan({self._parameters}):\n    {body}"), self._values)
        return self._values["plan"]  # type: ignore[return-value]

    def _name(self, tensor: torch.Tensor, name: str) -> None:
        self._held.append(tensor)
        self._names.setdefault(id(tensor), name)
        try:
            self._bases.setdefault(tensor.untyped_storage()._cdata, (name, tensor))
        except (RuntimeError, NotImplementedError):  # it has none
            self.failed = True

    def _said(self, value: Any) -> str:
        """A value, as the plan writes it."""
        if isinstance(value, torch.Tensor):
            name = self._names.get(id(value))
            self.failed |= name is None
            return str(name)
        self.failed |= _holds_tensors(value)
        plain = value is None or type(value) in (bool, int, str)
        return repr(value) if plain else self._value(value)

    def _remade(self, func: Function, args: tuple, kwargs: dict[str, Any], result: object) -> None:
        """A result that may be used, or not: a line that may be left out."""
        if not isinstance(result, torch.Tensor) or id(result) in self._names:
            return
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        others = [one for one in (*args, *kwargs.values()) if not isinstance(one, torch.Tensor)]
        if any(id(one) not in self._names for one in tensors) or _holds_tensors(others):
            return
        name, base = self._bases.get(result.untyped_storage()._cdata, ("", None))
        tracked = torch.is_grad_enabled() and base is not None and base.requires_grad
        if base is None or tracked or base.dtype != result.dtype:
            said = [self._said(one) for one in args]
            said += [f"{key}={self._said(one)}" for key, one in kwargs.items()]
            how = f"{self._value(func)}({', '.join(said)})"
        else:  # a chain of views is one view
            away = result.storage_offset() - base.storage_offset()
            start = f", {name}.storage_offset() + {away}" if away else ""
            how = f"{name}.as_strided({tuple(result.shape)}, {result.stride()}{start})"
        made = f"v{len(self._lines)}"
        self._lines.append((made, how))
        self._name(result, made)

    def _value(self, value: object) -> str:
        name = f"c{len(self._values)}"
        self._values[name] = value
        return name


_WORD = re.compile(r"\w+")


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, torch.Tensor) or (
        isinstance(value, tuple | list) and any(map(_holds_tensors, value))
    )


@functools.lru_cache(1024)
def _compiled(source: str) -> CodeType:
    """Plans of one form share their code."""
    return compile(source, "<launch plan>", "exec")
