"""Swap the layers of any ``torch.nn`` model for this package's, in place, and back."""

import functools
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from pydl import backends, dispatch, nn
from pydl.nn import binding
from pydl.nn.layer import Layer

COUNTERPARTS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    getattr(torch.nn, name): getattr(nn, name) for name in nn.__all__ if hasattr(torch.nn, name)
}

_log = logging.getLogger("pydl")


def accelerate(model: torch.nn.Module, backend: str | None = None) -> torch.nn.Module:
    """Let this package serve every layer of ``model`` that has a counterpart in :mod:`pydl.nn`.

    In place: the model and each of its layers stay the same objects, of the same classes, with the
    same parameters, buffers, hooks and ``state_dict``; only the code by which a swapped layer
    computes is pydl's. So whatever looks for a layer of ``torch.nn`` finds it: ``isinstance``,
    ``torch.fx``, ``torch.ao.quantization``, the parametrizations of ``torch.nn.utils``. A deep copy
    and a replica are swapped as well; a pickle of the whole model and ``copy.copy`` hold the layers
    as torch.nn made them, so that a pickle loads without pydl. ``torch.jit.script`` compiles
    torch.nn's own.

    Nested and shared modules are swapped, and ``model`` itself; instances of a subclass too, unless
    it or the instance has a ``forward`` or ``_conv_forward`` of its own. Lazy layers are left until
    they have seen an input: call ``accelerate`` again then; a second call changes nothing but the
    backend. :func:`report` says what was swapped and what was left; so does a line on the logger
    ``pydl``.

    Where torchvision is imported its layers ``RoIAlign`` and ``RoIPool`` are swapped too. Calls of
    its functions (``roi_align``, ``roi_pool``, ``nms``), which its detection models make, are not
    layers and stay torchvision's.

    ``torch.compile`` refuses every instance of ``torch.nn.RNN``, ``GRU`` and ``LSTM`` and breaks
    the graph there, swapped or not. A swapped one becomes one operator of the graph with
    ``torch._dynamo.config.allow_rnn = True``, as a layer of ``pydl.nn`` does without it.

    Args:
        model: any module.
        backend: the backend that must serve the swapped layers; None leaves the choice open.

    Returns:
        The model.

    Raises:
        TypeError: ``model`` is no module.
        ValueError: there is no such backend.

    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.MaxPool2d(2))
    >>> model = pydl.accelerate(model)
    >>> print(pydl.report(model))
    2 layers swapped, 0 left alone
    0: torch.nn.Conv2d -> pydl.nn.Conv2d
    1: torch.nn.MaxPool2d -> pydl.nn.MaxPool2d
    """
    backend = None if backend is None else backends.checked(backend)
    _warn_where_nothing_is_ours()
    for _, module, base, counterpart in _layers(model):
        if _reason_to_leave(module, base) is None:
            binding.bind(module, base, counterpart, backend)
    _log.info("accelerate: %s", report(model).summary())
    return model


def restore(model: torch.nn.Module) -> torch.nn.Module:
    """Undo :func:`accelerate`, in place: torch.nn serves every layer that it swapped.

    Layers that were made as ``pydl.nn`` layers stay.

    Args:
        model: the model, or any part of it.

    Returns:
        The model.

    Raises:
        TypeError: ``model`` is no module.
    """
    for _, module, _, _ in _layers(model):
        binding.unbind(module)
    _log.info("restore: %s", report(model).summary())
    return model


@dataclass
class Report:
    """Which layers of a model this package serves; prints as a table.

    Attributes:
        swapped: (module's name, its class, the class that serves it), one per layer.
        left: (module's name, its class, why), for layers that have a counterpart and are not
            swapped.
    """

    swapped: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)

    def summary(self) -> str:
        return f"{len(self.swapped)} layers swapped, {len(self.left)} left alone"

    def __str__(self) -> str:
        lines = [f"{name or '(model)'}: {cls} -> {ours}" for name, cls, ours in self.swapped]
        lines += [f"{name or '(model)'}: {cls} left alone, {why}" for name, cls, why in self.left]
        return "\n".join([self.summary(), *lines])


def report(model: torch.nn.Module) -> Report:
    """What :func:`accelerate` has swapped in ``model`` and what it has left alone, and why, as the
    model stands.

    Args:
        model: the model, or any part of it.

    Raises:
        TypeError: ``model`` is no module.
    """
    made = Report()
    for name, module, base, counterpart in _layers(model):
        if binding.is_bound(module):
            made.swapped.append((name, _name(type(module)), _name(counterpart)))
        else:
            why = _reason_to_leave(module, base) or "accelerate has not been called on it"
            made.left.append((name, _name(type(module)), why))
    return made


def _layers(model: object) -> Iterator[tuple[str, torch.nn.Module, type, type]]:
    """Each module that has a counterpart: its name, the module, its class there and ours."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    counterparts = COUNTERPARTS | _torchvision()
    for name, module in model.named_modules():
        base = next((cls for cls in type(module).__mro__ if cls in counterparts), None)
        if base is not None and not isinstance(module, Layer):
            yield name, module, base, counterparts[base]


def _torchvision() -> dict[type[torch.nn.Module], type[torch.nn.Module]]:
    """A model has no layer of torchvision unless somebody has imported it, so it is not imported
    here."""
    ops = sys.modules.get("torchvision.ops")
    return {getattr(ops, name): getattr(nn, name) for name in _REGIONS if hasattr(ops, name)}


_REGIONS = ("RoIAlign", "RoIPool")


def _reason_to_leave(module: torch.nn.Module, base: type[torch.nn.Module]) -> str | None:
    if isinstance(module, torch.nn.modules.lazy.LazyModuleMixin):
        return "it is lazy and has not seen an input yet"
    mro = type(module).__mro__
    own = [vars(cls) for cls in mro[: mro.index(base)]]
    for methods in (vars(module), *own):
        for name in binding.COMPUTES:
            if name in methods and not binding.is_ours(methods[name]):
                return f"it overrides {name}"
    return None


def _name(cls: type) -> str:
    module = cls.__module__
    for public in ("torch.nn.", "pydl.nn.", "torchvision.ops."):
        if module.startswith(public):
            module = public.rstrip(".")
    return f"{module}.{cls.__qualname__}"


@functools.cache
def _warn_where_nothing_is_ours() -> None:
    """Warns once per process: a package without its extension, or on a kind of machine that nobody
    has measured, swaps layers and speeds nothing up."""
    reasons = {
        name: backends.BACKENDS[name].missing
        for name in {row.backend for row in dispatch.used()} or {"cpu"}
    }
    said = [f"backend {name!r} is not available: {why}" for name, why in reasons.items() if why]
    if not set(dispatch.used()) - set(dispatch.LACKING) and not said:
        said = [f"there is no table for {dispatch.machine()}; `pydl tune` measures this machine"]
    if not dispatch.EXACT and len(said) == len(reasons):
        warnings.warn(
            "the layers are swapped, but PyTorch's own operators serve all of them: "
            + "; ".join(said),
            stacklevel=3,
        )
