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
    if family == "pool":
        of_pool = dispatch.bounds("pool3d" if "3d" in name else family)
        return lambda args: of_pool
    if family == "pool_adaptive" and "avg" in name:
        of_kind = {kind: dispatch.bounds(kind) for kind in ("pool_global", family)}
        return lambda args: of_kind[kind_of_average(args[1] if len(args) > 1 else None)]
    if family != "conv":
        return None
    first = "conv_grad_input" if "transpose" in name else "conv_forward"
    depthwise, dense = dispatch.bounds("depthwise", function=first), dispatch.bounds("conv")

    def of_convolution(args: tuple) -> dispatch.Bounds:
        """It may be depthwise if its weight has one channel."""
        one = len(args) < 2 or getattr(args[1], "ndim", 0) < 2 or args[1].shape[1] == 1
        return depthwise if one else dense

    return of_convolution
