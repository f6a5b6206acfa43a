"""Tuning all calls of a model."""

from collections.abc import Callable
from typing import Any

import torch

from pydl import dispatch
from pydl.measure import settled
from pydl.tuning.file import write
from pydl.tuning.misses import noting
from pydl.tuning.tuner import Choice, Tuner
from pydl.tuning.when_new import measuring


def tune(
    model: Callable[..., object],
    *inputs: Any,
    passes: tuple[str, ...] = ("inference", "training"),
    seconds: float = 0.1,
    save: bool = True,
    progress: Callable[[Choice], None] | None = None,
) -> list[Choice]:
    """Find out who serves each call of a model fastest on this machine, and remember it.

    The model is run once for each pass. Wherever it calls an operator or a layer of this package
    (``pydl.accelerate`` puts them into a model of ``torch.nn``) under ``auto``, each backend that
    can serve that very call (shape, layout, dtype, arguments, pass, threads) is compared with the
    reference and timed in turns. From then on ``auto`` gives the call to the fastest, in this
    process and, if it is saved, in later ones on the same device, with the same versions of PyTorch
    and pydl. Buffers, gradients and the random state are as before afterwards.

    Args:
        model: a module or another callable.
        inputs: what it is called with.
        passes: of ``inference`` (no gradients, ``eval()``) and ``training`` (``train()``).
        seconds: how long to measure each call, roughly.
        save: whether later processes are to know.
        progress: called with each :class:`Choice`.

    Returns:
        What was found, in the order of the calls; none for calls that were known before.

    Raises:
        ValueError: a pass is neither ``inference`` nor ``training``.
        Exception: whatever the model raises. What was found before that is kept.
    """
    for one in passes:
        if one not in ("inference", "training"):
            raise ValueError(f"passes must be of inference and training, got {one!r}")
    found: list[Choice] = []

    def keep(choice: Choice) -> None:
        found.append(choice)
        if progress is not None:
            progress(choice)

    try:
        with settled(), measuring(Tuner(seconds, keep)):
            for one in passes:
                _run(model, inputs, training=one == "training")
    finally:
        if save and found:
            write(found)
    return found


def calls_of(
    model: Callable[..., object], *inputs: Any, passes: tuple[str, ...] = ("inference", "training")
) -> list[tuple[str, dispatch.Key]]:
    """What :func:`tune` would measure: family and key of each call that is not known."""
    seen: dict[tuple[str, dispatch.Key], None] = {}

    def note(family: str, tensor: torch.Tensor, key: dispatch.Key) -> None:
        seen[family, key] = None

    with noting(note):
        for one in passes:
            _run(model, inputs, training=one == "training")
    return list(seen)


def _run(model: Callable[..., object], inputs: tuple, training: bool) -> None:
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [module.training for module in modules]
    buffers = [
        (buffer, buffer.clone()) for module in modules for buffer in module.buffers(recurse=False)
    ]
    devices = {one.device for one in inputs if isinstance(one, torch.Tensor) and one.is_cuda}
    try:
        for module in modules:
            module.training = training
        with torch.random.fork_rng(devices=list(devices)), torch.set_grad_enabled(training):
            model(*inputs)
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
