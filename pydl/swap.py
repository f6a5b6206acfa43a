"""Swap the layers of any ``torch.nn`` model for this package's, in place, and back."""

import functools
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from pydl import backends, dispatch, fusion, nn
from pydl.nn import binding
from pydl.nn.layer import Layer

COUNTERPARTS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    getattr(torch.nn, name): getattr(nn, name) for name in nn.__all__ if hasattr(torch.nn, name)
}

_log = logging.getLogger("pydl")


def accelerate(
    model: torch.nn.Module, backend: str | None = None, *, fuse: bool = False
) -> torch.nn.Module:
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

    With ``fuse=True`` layers that follow each other are computed together as well: a convolution,
    the batch normalisation behind it, the addition of a residual, the activation, in one call;
    a max pool before an activation instead of behind it; dropout in evaluation not at all. In
    evaluation without gradients of the parameters, a normalisation is folded into a copy of the
    convolution's weight, which follows each change of what it was made of. The forward of each
    module that calls such layers is followed by torch.fx; one that it cannot follow is left, and
    :func:`report` says why. The model's own forward runs wherever something is not as it was when
    the model was fused, a layer has hooks, or the call is watched: under ``torch.compile``, which
    fuses by itself, ``torch.export``, tracers, autocast and ``torch.func``.

    Args:
        model: any module.
        backend: the backend that must serve the swapped layers; None leaves the choice open. Under
            one given by name no normalisation is folded.
        fuse: whether to compute layers together; a second call without leaves those that are.

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

    >>> layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    >>> print(pydl.report(pydl.accelerate(torch.nn.Sequential(*layers), fuse=True)))
    3 layers swapped, 0 left alone, 1 forward fused
    0: torch.nn.Conv2d -> pydl.nn.Conv2d
    1: torch.nn.BatchNorm2d -> pydl.nn.BatchNorm2d
    2: torch.nn.ReLU -> pydl.nn.ReLU
    (model): fused 0 + 1 + 2
    """
    backend = None if backend is None else backends.checked(backend)
    _warn_where_nothing_is_ours()
    for _, module, base, counterpart in _layers(model):
        if binding.reason_to_leave(module, base) is None:
            binding.bind(module, base, counterpart, backend)
    if fuse:
        fusion.fuse(model)
    _log.info("accelerate: %s", report(model).summary())
    return model


def restore(model: torch.nn.Module) -> torch.nn.Module:
    """Undo :func:`accelerate`, in place: torch.nn serves every layer that it swapped, and every
    forward is the model's own.

    Layers that were made as ``pydl.nn`` layers stay.

    Args:
        model: the model, or any part of it.

    Returns:
        The model.

    Raises:
        TypeError: ``model`` is no module.
    """
    for module in _module(model).modules():
        binding.unbind(module)
    fusion.forget(model)
    _log.info("restore: %s", report(model).summary())
    return model


@dataclass
class Report:
    """Which layers of a model this package serves; prints as a table.

    Attributes:
        swapped: (module's name, its class, the class that serves it), one per layer.
        left: (module's name, its class, why), for layers that have a counterpart and are not
            swapped.
        fused: (module's name, what it computes together), for modules with a forward of ours.
        unfused: (module's name, why), for modules beside those whose forward cannot be followed.
    """

    swapped: list[tuple[str, str, str]] = field(default_factory=list)
    left: list[tuple[str, str, str]] = field(default_factory=list)
    fused: list[tuple[str, str]] = field(default_factory=list)
    unfused: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        said = f"{len(self.swapped)} layers swapped, {len(self.left)} left alone"
        if self.fused or self.unfused:
            said += f", {len(self.fused)} forward{'s' * (len(self.fused) != 1)} fused"
        return said

    def __str__(self) -> str:
        lines = [f"{name or '(model)'}: {cls} -> {ours}" for name, cls, ours in self.swapped]
        lines += [f"{name or '(model)'}: {cls} left alone, {why}" for name, cls, why in self.left]
        lines += [f"{name or '(model)'}: fused {what}" for name, what in self.fused]
        lines += [f"{name or '(model)'}: not fused, {why}" for name, why in self.unfused]
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
            why = binding.reason_to_leave(module, base) or "accelerate has not been called on it"
            made.left.append((name, _name(type(module)), why))
    made.fused = [(one.name, str(one)) for one in fusion.fused(model)]
    made.unfused = fusion.unfused(model)
    return made


def _module(model: object) -> torch.nn.Module:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def _layers(model: object) -> Iterator[tuple[str, torch.nn.Module, type, type]]:
    """Each module that has a counterpart: its name, the module, its class there and ours."""
    counterparts = COUNTERPARTS | _torchvision()
    for name, module in _module(model).named_modules():
        base = next((cls for cls in type(module).__mro__ if cls in counterparts), None)
        if base is not None and not isinstance(module, Layer):
            yield name, module, base, counterparts[base]


def _torchvision() -> dict[type[torch.nn.Module], type[torch.nn.Module]]:
    """A model has no layer of torchvision unless somebody has imported it, so it is not imported
    here."""
    ops = sys.modules.get("torchvision.ops")
    return {getattr(ops, name): getattr(nn, name) for name in _REGIONS if hasattr(ops, name)}


_REGIONS = ("RoIAlign", "RoIPool")


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
