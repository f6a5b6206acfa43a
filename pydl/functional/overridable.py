"""Makes a function one that PyTorch's overrides reach."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pydl.entry import entry

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Families whose functions take more than PyTorch's of the same name, or warn where they are called.
_OTHERS = ("pool_lp", "cross_entropy")


def overridable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Lets arguments with ``__torch_function__`` (torch.fx's proxies, tensor subclasses) and modes
    take over a call, as they do with those of :mod:`torch.nn.functional`."""
    family = function.__module__.rpartition(".")[2]
    stock = None if family in _OTHERS else getattr(torch.nn.functional, function.__name__, None)
    kind = _kind if family == "conv" else None
    return entry(family, function, stock, overridable=True, kind=kind)


def _kind(args: tuple) -> str:
    """Whether a convolution may be depthwise: its weight has one channel."""
    one = len(args) < 2 or getattr(args[1], "ndim", 0) < 2 or args[1].shape[1] == 1
    return "depthwise" if one else "conv"
