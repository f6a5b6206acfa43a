"""Makes a function one that PyTorch's overrides reach."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from pydl import dispatch
from pydl.entry import entry
from pydl.ops.pool_adaptive import kind_of_average

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Families whose functions take more than PyTorch's of the same name, or warn where they are called.
_OTHERS = ("pool_lp", "cross_entropy")


def overridable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Lets arguments with ``__torch_function__`` (torch.fx's proxies, tensor subclasses) and modes
    take over a call, as they do with those of :mod:`torch.nn.functional`."""
    family = function.__module__.rpartition(".")[2]
    stock = None if family in _OTHERS else getattr(torch.nn.functional, function.__name__, None)
    of = _bounds_of(family, function.__name__)
    return entry(family, function, stock, overridable=True, bounds_of=of)


def _bounds_of(family: str, name: str) -> Callable[[tuple], dispatch.Bounds] | None:
    """Of a function by its family and name."""
    if family not in ("conv", "pool", "pool_adaptive"):
        return None
    kind, function = dispatch.deciding(family, name)
    if family == "pool":
        of_pool = dispatch.bounds(kind, function=function)
        return lambda args: of_pool
    if family == "pool_adaptive":
        if "avg" not in name:
            return None
        of = {one: dispatch.bounds(one, function=function) for one in (kind, "pool_global")}
        return lambda args: of[kind_of_average(args[1] if len(args) > 1 else None)]
    depthwise, dense = dispatch.bounds(kind, function=function), dispatch.bounds("conv")

    def of_convolution(args: tuple) -> dispatch.Bounds:
        """It may be depthwise if its weight has one channel."""
        one = len(args) < 2 or getattr(args[1], "ndim", 0) < 2 or args[1].shape[1] == 1
        return depthwise if one else dense

    return of_convolution
