"""Binds the methods of a layer of this package to an instance of torch.nn's class.

The instance keeps its class, so whatever looks for that (``isinstance``, tables of exact types,
parametrizations, which put a class of their own in its place) finds it. What is bound is kept in
the instance's ``__dict__``, with methods that keep it correct when the instance is copied: a copy
is bound to itself, a pickle holds none of it.
"""

import contextlib
import copy
import functools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pydl import backends
from pydl.nn import at_once
from pydl.nn.at_once import COMPUTES


def bind(module: torch.nn.Module, base: type, layer: type, backend: str | None) -> None:
    """Let ``layer``'s methods serve ``module``, an instance of ``base``, by this backend."""
    ours: dict[str, object] = {"_pydl_backend": backend}
    for name, method in (_methods(base, layer) | _KEPT).items():
        ours[name] = types.MethodType(method, module)
    module.__dict__.update(ours)


def bind_forward(module: torch.nn.Module, forward: types.FunctionType) -> None:
    """Let ``forward``, which ``at_once.standing_for`` made, serve ``module``."""
    made: dict[str, object] = {"_pydl_backend": None, "forward": types.MethodType(forward, module)}
    for name, method in _KEPT.items():
        made[name] = types.MethodType(method, module)
    module.__dict__.update(made)


def unbind(module: torch.nn.Module) -> None:
    """Undo :func:`bind` and :func:`bind_forward`. Where a method of the user's now covers a bound
    one, which it presumably calls, both stay."""
    if is_bound(module):
        _take(module)


def is_bound(module: torch.nn.Module) -> bool:
    """Whether ``module`` is served by the methods of a layer of this package."""
    return any(is_ours(module.__dict__.get(name)) for name in COMPUTES)


def is_ours(method: object) -> bool:
    """Whether this is a method made by :func:`bind` or :func:`bind_forward`."""
    return isinstance(method, types.MethodType) and at_once.is_made(method.__func__)


def reason_to_leave(module: torch.nn.Module, base: type[torch.nn.Module]) -> str | None:
    """Why ``module`` may not compute what its class ``base`` does; None where it does."""
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        return "it is lazy and has not seen an input yet"
    mro = type(module).__mro__
    own = [vars(cls) for cls in mro[: mro.index(base)]]
    for methods in (vars(module), *own):
        for name in COMPUTES:
            if name in methods and not is_ours(methods[name]):
                return f"it overrides {name}"
    return None


@functools.cache
def _methods(base: type, layer: type) -> dict[str, Callable[..., Any]]:
    """The methods by which ``layer`` computes something in another way than ``base``.

    Each has the name, signature, source and globals of the method that it stands for:
    ``torch.jit.script`` compiles torch.nn's method from the layer as it stands, and finds its
    source through ``__wrapped__`` and the names in it through ``__globals__``.
    """
    ours = {
        name: getattr(layer, name)
        for name in COMPUTES
        if getattr(layer, name, None) is not getattr(base, name, None)
    }
    if issubclass(base, torch.nn.RNNBase):
        ours = {name: _in_no_pieces(method) for name, method in ours.items()}
    return {
        name: at_once.method(getattr(base, name), method, layer, like=getattr(base, name))
        for name, method in ours.items()
    }


def _in_no_pieces(ours: Callable) -> Callable:
    """``torch.compile`` refuses whatever takes a recurrent layer, and would then compile what that
    calls, piece by piece and again for each length."""
    whole = functools.cache(lambda: torch.compiler.disable(ours))

    def method(self, *args, **kwargs):
        if torch.compiler.is_compiling() or "torch._dynamo" not in sys.modules:
            return ours(self, *args, **kwargs)
        return whole()(self, *args, **kwargs)

    return method


def _take(module: torch.nn.Module) -> dict[str, object]:
    """Takes out of the module, and returns, what :func:`bind` put in."""
    held = module.__dict__
    names = [name for name in COMPUTES if is_ours(held.get(name))]
    return {name: held.pop(name) for name in ("_pydl_backend", *_KEPT, *names) if name in held}


@contextlib.contextmanager
def _unbound(module: torch.nn.Module) -> Iterator[dict[str, object]]:
    """The module as its class made it, for what the class itself (or a user's subclass) does to
    copy or pickle it."""
    ours = _take(module)
    try:
        yield ours
    finally:
        module.__dict__.update(ours)


def _rebound(made: torch.nn.Module, ours: dict[str, object]) -> torch.nn.Module:
    for name, value in ours.items():
        if isinstance(value, types.MethodType):
            value = types.MethodType(value.__func__, made)
        made.__dict__[name] = value
    return made


def _deepcopy(module: torch.nn.Module, memo: dict) -> torch.nn.Module:
    with _unbound(module) as ours:
        made = copy.deepcopy(module, memo)
    return _rebound(made, ours) if type(made) is type(module) else made


def _replicate(module: torch.nn.Module) -> torch.nn.Module:
    with _unbound(module) as ours:
        made = module._replicate_for_data_parallel()
    return _rebound(made, ours)


def _reduce(module: torch.nn.Module, protocol: int) -> str | tuple:
    """Pickles and copies the module as its class does, so that a pickle loads without pydl."""
    with _unbound(module):
        reduced = module.__reduce_ex__(protocol)
        if isinstance(reduced, str):
            return reduced
        return tuple(dict(part) if part is module.__dict__ else part for part in reduced)


def _prepare_scriptable(module: torch.nn.Module) -> torch.nn.Module:
    name = backends.asked(module.__dict__["_pydl_backend"])
    if name not in ("auto", "aten"):
        raise RuntimeError(
            f"torch.jit.script compiles torch.nn's own {type(module).__name__} and cannot have "
            f"backend {name!r} serve it; leave the backend out, or use torch.compile or "
            "torch.export"
        )
    return module


_KEPT: dict[str, Callable[..., Any]] = {
    "__deepcopy__": _deepcopy,
    "__reduce_ex__": _reduce,
    "_replicate_for_data_parallel": _replicate,
    "__prepare_scriptable__": _prepare_scriptable,
}
