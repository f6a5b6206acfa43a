"""Swap the layers of any ``torch.nn`` model for this package's, in place, and back.

A swap changes the module's class and nothing else: it stays the same object with the same
Parameters, buffers and hooks, so optimisers, weight sharing, ``state_dict`` and references to it
are untouched.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from pydl import nn
from pydl.nn.layer import Layer

COUNTERPARTS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    getattr(torch.nn, name): getattr(nn, name) for name in nn.__all__ if hasattr(torch.nn, name)
}

_ORIGIN = "_accelerated_from"  # in the __dict__ of a swapped module: the class it had


@dataclass
class Changes:
    """What :func:`accelerate` or :func:`restore` did; prints as a table.

    Attributes:
        swapped: (module's name, class before, class after), one a module.
        left: (module's name, class, why), for layers that have a counterpart and were left alone.
    """

    swapped: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{name or '(model)'}: {before} -> {after}" for name, before, after in self.swapped
        ]
        lines += [f"{name or '(model)'}: {kind} left alone, {why}" for name, kind, why in self.left]
        return "\n".join(
            [f"{len(self.swapped)} layers swapped, {len(self.left)} left alone", *lines]
        )


def accelerate(model: torch.nn.Module) -> Changes:
    """Let this package serve every layer of ``model`` that has a counterpart in :mod:`pydl.nn`.

    In place; nested and shared modules included, ``model`` itself too. Subclasses of a layer are
    swapped as well, unless they compute something of their own (override ``forward`` or
    ``_conv_forward``). Models that are pickled whole name pydl's classes from then on;
    ``state_dict`` is the same.

    Args:
        model: any module.

    Returns:
        What was swapped and what was left alone, and why.
    """
    changes = Changes()
    for name, module in _modules(model):
        base = next((base for base in COUNTERPARTS if isinstance(module, base)), None)
        if base is None or isinstance(module, Layer):
            continue
        why = _reason_to_leave(module, base)
        before = _class_name(type(module))
        if why is not None:
            changes.left.append((name, before, why))
            continue
        origin = type(module)
        module.__class__ = _swapped_class(origin, base)
        module.__dict__[_ORIGIN] = origin
        changes.swapped.append((name, before, _class_name(type(module))))
    return changes


def restore(model: torch.nn.Module) -> Changes:
    """Undo :func:`accelerate`: every module it swapped gets its own class back, in place.

    Layers that were made as ``pydl.nn`` layers stay.

    Args:
        model: the model, or any part of it.

    Returns:
        What was changed back.
    """
    changes = Changes()
    for name, module in _modules(model):
        origin = module.__dict__.pop(_ORIGIN, None)
        if origin is not None:
            before = _class_name(type(module))
            module.__class__ = origin
            changes.swapped.append((name, before, _class_name(origin)))
    return changes


def _modules(model: object) -> Iterator[tuple[str, torch.nn.Module]]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return iter(list(model.named_modules()))


def _class_name(cls: type) -> str:
    module = "torch.nn" if cls.__module__.startswith("torch.nn.modules") else cls.__module__
    module = "pydl.nn" if module.startswith("pydl.nn") else module
    return f"{module}.{cls.__qualname__}"


def _reason_to_leave(module: torch.nn.Module, base: type[torch.nn.Module]) -> str | None:
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        return "it is lazy and has not seen an input yet"
    computes = ("forward", "_conv_forward")
    own = [cls for cls in type(module).__mro__ if issubclass(cls, base) and cls is not base]
    for owner in (module, *own):
        for method in computes:
            if method in vars(owner):
                return f"it overrides {method}"
    return None


def _swapped_class(
    origin: type[torch.nn.Module], base: type[torch.nn.Module]
) -> type[torch.nn.Module]:
    """The counterpart itself; for a subclass of the base, one that puts the counterpart's methods
    before the base's."""
    counterpart = COUNTERPARTS[base]
    if origin is base:
        return counterpart
    made = _made.get(origin)
    if made is None:
        # Methods of the counterpart must come first, so it leads the bases; the constructor is
        # never run again.
        body = {"__module__": origin.__module__, "__reduce_ex__": _reduce}
        made = _made[origin] = type(origin.__name__, (counterpart, origin), body)
    return made


_made: dict[type, type] = {}


def _reduce(module: torch.nn.Module, protocol: int) -> tuple:
    """Pickles and copies a module of a made class by the class it had."""
    return _rebuild, (module.__dict__[_ORIGIN],), module.__dict__


def _rebuild(origin: type[torch.nn.Module]) -> torch.nn.Module:
    base = next(base for base in COUNTERPARTS if issubclass(origin, base))
    made = _swapped_class(origin, base)
    return made.__new__(made)
