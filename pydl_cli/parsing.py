"""How several commands read their arguments."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sizes_of(text: str) -> tuple[int, ...]:
    """``1x28x28`` or ``1,28,28`` to positive numbers in PyTorch's range; none where it is
    neither."""
    try:
        sizes = tuple(int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        return ()
    return sizes if all(0 < size < 2**63 for size in sizes) else ()


def cuda_missing() -> str | None:
    """Why there is no GPU here, or None where there is one."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda:
        return f"this PyTorch is built for CUDA {torch.version.cuda}"
    return "this PyTorch has no CUDA"


def device_of(backend: str) -> str:
    """The device that a backend serves: ``cuda``, or else ``cpu``.

    Raises:
        RuntimeError: it serves a GPU only, and there is none, or no kernel was built for one.
    """
    from pydl.backends import BACKENDS

    if backend not in BACKENDS or BACKENDS[backend].devices != ("cuda",):
        return "cpu"
    missing = BACKENDS[backend].missing or cuda_missing()
    if missing:
        raise RuntimeError(f"backend {backend!r} is not available: {missing}")
    return "cuda"


def built(option: str, name: str, *, fuse: bool = False) -> "torch.nn.Module":
    """What the factory of this name (``module:factory``) returns, with this package's layers in it;
    ``option`` is what the command line calls it."""
    import importlib
    import os
    import sys

    import torch

    import pydl

    module, _, factory = name.partition(":")
    if not module or not factory:
        raise ValueError(f"{option} must be module:factory, got {name!r}")
    sys.path.insert(0, os.getcwd())  # a file of the user's
    built = getattr(importlib.import_module(module), factory, None)
    if built is None:
        raise ValueError(f"{option}: module {module!r} has no {factory!r}")
    model = built()
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"{option}: {name} must return a torch.nn.Module, got {type(model).__name__}"
        )
    return pydl.accelerate(model, fuse=fuse)


def to_channels_last(model: "torch.nn.Module") -> None:
    """Lays the weights of 2-D convolutions out, in place."""
    import torch

    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
