"""Writing down what a call does, as the plan of the next one (pydl/plan.py)."""

import functools
import re
import threading
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

Result = TypeVar("Result")
Function = Callable[..., Any]

_MOST_STEPS = 256  # of a few layers, not of a loop over a sequence
STALE = object()  # instead of a plan's result: a setting has changed
recorders: dict[int, "Recorder"] = {}  # by thread

# The functions of a tensor that tell its geometry ("__get__" is that of all properties), and those
# whose result is a view, a copy or unwritten, and may be made again.
_GEOMETRY = {
    *("__get__", "size", "stride", "dim", "numel", "ndimension", "element_size", "__len__"),
    *("storage_offset", "untyped_storage", "is_contiguous", "is_floating_point", "is_complex"),
    *("is_neg", "is_conj", "_is_view", "is_same_size", "promote_types"),
}
_REMADE = {
    *("as_strided", "view", "reshape", "flatten", "squeeze", "unsqueeze", "permute", "movedim"),
    *("transpose", "t", "narrow", "select", "expand", "__getitem__", "detach"),
    *("resolve_neg", "contiguous", "clone", "to", "long", "empty", "empty_like", "new_empty"),
    "new_zeros",
}
_OTHER_PROPERTIES = tuple(vars(torch._C.TensorBase)[name].__get__ for name in ("data", "grad"))


class Recorder(TorchFunctionMode):
    """Writes down what a call does, as the lines of a function. PyTorch tells it of every function
    of a tensor that is called."""

    def __init__(self, given: tuple) -> None:
        super().__init__()
        self.failed = False
        self._is_quiet = False
        self._settings: dict[Callable[[], object], object] = {}
        self._lines: list[tuple[str, str]] = []  # the name of what a line makes, and how
        self._names: dict[int, str] = {}  # of each tensor, by its id
        self._bases: dict[int, tuple[str, torch.Tensor]] = {}  # of each storage, the first tensor
        self._viewed: dict[str, tuple[str, torch.Tensor]] = {}  # of each view, what it is of
        self._boxes: dict[int, list[torch.Tensor]] = {}
        self._held: list[torch.Tensor] = []  # so that no other gets its id
        self._body = ""
        self._values: dict[str, object] = {
            "empty_strided": torch.empty_strided,
            "STALE": STALE,
        }
        self._parameters = ", ".join(f"a{place}" for place in range(len(given)))
        for place, one in enumerate(given):
            if isinstance(one, torch.Tensor):
                # A view of memory that two of them share could be of either.
                self.failed |= one.untyped_storage()._cdata in self._bases
                self._name(one, f"a{place}")

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

    def record(
        self, function: Callable[..., Result], args: tuple, kwargs: dict[str, Any]
    ) -> tuple[Result, Function | None]:
        """What the call returns, and the function that does all of it again and returns the like of
        that; None where there is none."""
        thread = threading.get_ident()
        outer = recorders.get(thread)
        recorders[thread] = self
        try:
            with self:
                result = function(*args, **kwargs)
                return result, self.quietly(self._plan, result)
        finally:
            if outer is None:
                del recorders[thread]
            else:
                recorders[thread] = outer

    def guarded(self, condition: str, values: dict[str, object]) -> Function:
        """The same function, but it returns STALE where its arguments, of which this condition
        speaks as ``a0``, ``a1`` and so on, do not fulfil it."""
        body = f"if not ({condition}): return STALE\n    {self._body}"
        return written(self._parameters, body, self._values | values)

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

    def launched(self, keep: Function, arguments: tuple, where: int, start: Any) -> None:
        """Lets a plan launch a kernel (plan.launch)."""
        if not self._is_quiet:
            self.quietly(self._launched, keep, arguments, where, start)

    def _launched(self, keep: Function, arguments: tuple, where: int, start: Any) -> None:
        # Views need not be made again: a launch knows where in whose memory they lie.
        tensors = [one for one in arguments if isinstance(one, torch.Tensor) and one.data_ptr()]
        names = [self._said(one) for one in tensors]
        bases = [
            self._viewed.get(name, (name, one)) for name, one in zip(names, tensors, strict=True)
        ]
        kept = keep([base for _, base in bases], *arguments, where)
        again = self._value(kept if start is None else start.bound(kept))
        given = ", ".join(name for name, _ in bases)
        self._lines.append((f"r{len(self._lines)}", f"{again}({given})"))

    def depends(self, read: Callable[[], object], value: object) -> None:
        """Lets a plan hold only while ``read()`` is ``value``."""
        if not self._is_quiet:
            self._settings[read] = value

    def box(self) -> list[torch.Tensor]:
        """A list that a function is given to put results into."""
        box: list[torch.Tensor] = []
        if not self._is_quiet:
            name = f"b{len(self._lines)}"
            self._lines.append((name, "[]"))
            self._names[id(box)] = name
            self._boxes[id(box)] = box
        return box

    def filled(self, box: list[torch.Tensor]) -> None:
        """Lets a plan know what is in the box."""
        for place, one in enumerate(box):
            if id(box) in self._boxes:
                self.quietly(self._name, one, f"{self._names[id(box)]}[{place}]")

    def fail(self) -> None:
        """Lets there be no plan."""
        self.failed |= not self._is_quiet

    def allocated(self, result: torch.Tensor) -> None:
        """Lets a plan allocate the like of ``result``."""
        if not self._is_quiet:
            self.quietly(self._allocated, result)

    def _allocated(self, result: torch.Tensor) -> None:
        self._forget(result)  # which came from a function that a plan could call as well, slower
        made = f"t{len(self._lines)}"
        sizes, dtype = f"{tuple(result.shape)}, {result.stride()}", self._value(result.dtype)
        at_once = _allocation(result.device)
        if at_once is not None:
            how = f"{self._value(at_once)}({sizes}, {dtype})"
        else:
            how = f"empty_strided({sizes}, dtype={dtype}, device={self._value(result.device)})"
        self._lines.append((made, how))
        self._name(result, made)

    def _plan(self, result: object) -> Function | None:
        returned = self._returned(result)
        wanted, lines = set(_WORD.findall(returned)), [f"return {returned}"]
        for made, text in reversed(self._lines):
            if made in wanted or made.startswith("r"):
                wanted.update(_WORD.findall(text))
                lines.append(f"{made} = {text}" if made in wanted else text)
        if self.failed or len(lines) > _MOST_STEPS:
            return None
        lines += [
            f"if {self._value(read)}() != {self._said(value)}: return STALE"
            for read, value in self._settings.items()
        ]
        self._body = "\n    ".join(reversed(lines))
        return written(self._parameters, self._body, self._values)

    def _returned(self, result: object) -> str:
        if not isinstance(result, tuple):
            return self._said(result)
        self.failed |= type(result) is not tuple
        return f"({' '.join(f'{self._returned(one)},' for one in result)})"

    def _forget(self, tensor: torch.Tensor) -> None:
        self._names.pop(id(tensor), None)
        self._bases.pop(tensor.untyped_storage()._cdata, None)

    def _name(self, tensor: torch.Tensor, name: str) -> None:
        self._held.append(tensor)
        self._names.setdefault(id(tensor), name)
        try:
            self._bases.setdefault(tensor.untyped_storage()._cdata, (name, tensor))
        except (RuntimeError, NotImplementedError):  # it has none
            self.failed = True

    def _said(self, value: Any) -> str:
        """A value, as the plan writes it."""
        if isinstance(value, torch.Tensor) or id(value) in self._boxes:
            name = self._names.get(id(value))
            self.failed |= name is None
            return str(name)
        if type(value) is tuple and holds_tensors(value):
            return f"({' '.join(f'{self._said(one)},' for one in value)})"
        self.failed |= holds_tensors(value)
        plain = value is None or type(value) in (bool, int, str)
        return repr(value) if plain else self._value(value)

    def _remade(self, func: Function, args: tuple, kwargs: dict[str, Any], result: object) -> None:
        """A result that may be used, or not: a line that may be left out."""
        if not isinstance(result, torch.Tensor) or id(result) in self._names:
            return
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        others = [one for one in (*args, *kwargs.values()) if not isinstance(one, torch.Tensor)]
        if any(id(one) not in self._names for one in tensors) or holds_tensors(others):
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
            self._viewed[f"v{len(self._lines)}"] = name, base
        made = f"v{len(self._lines)}"
        self._lines.append((made, how))
        self._name(result, made)

    def _value(self, value: object) -> str:
        name = f"c{len(self._values)}"
        self._values[name] = value
        return name


@functools.cache
def _allocation(device: torch.device) -> Function | None:
    """What allocates as torch.empty_strided does on this device, in half the time; None: nothing.
    Graphs that torch.compile makes allocate by these functions, on a GPU on the current one."""
    fast: Function | None = getattr(torch._C._dynamo.guards, f"_empty_strided_{device.type}", None)
    if fast is None or device.type == "cpu":
        return fast
    if device.type != "cuda":
        return None
    here, index = torch._C._cuda_getDevice, device.index

    def allocate(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Any:
        if here() == index:
            return fast(size, stride, dtype)
        return torch.empty_strided(size, stride, dtype=dtype, device=device)

    return allocate


_WORD = re.compile(r"\w+")


def holds_tensors(value: Any) -> bool:
    """Whether there is a tensor in it, in whatever depth."""
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, torch.Tensor) or (
        isinstance(value, tuple | list) and any(map(holds_tensors, value))
    )


def written(parameters: str, body: str, values: dict[str, object]) -> Function:
    """The function of this source, in which these values have names."""
    names = ", ".join(values)
    source = f"def make({names}):\n  def plan({parameters}):\n    {body}\n  return plan"
    scope: dict[str, Any] = {}
    exec(_compiled(source), scope)
    return scope["make"](**values)


@functools.lru_cache(1024)
def _compiled(source: str) -> CodeType:
    """Plans of one form share their code. Their values are in a closure: what Python learns of
    globals, which are others for each plan, it keeps with the code."""
    return compile(source, "<launch plan>", "exec")
