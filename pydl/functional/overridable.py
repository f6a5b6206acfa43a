"""Makes a function one that PyTorch's overrides reach."""

import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from pydl import dispatch
from pydl.entry import entry
from pydl.ops.pool_adaptive import kind_of_average

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_OTHERS = ("cross_entropy",)  # families whose functions warn where they are called


def overridable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Lets arguments with ``__torch_function__`` (torch.fx's proxies, tensor subclasses) and modes
    take over a call, as they do with those of :mod:`torch.nn.functional`."""
    family = function.__module__.rpartition(".")[2]
    stock = None if family in _OTHERS else getattr(torch.nn.functional, function.__name__, None)
    stock = _finite(stock) if stock and family == "pool_lp" else stock
    of = _bounds_of(family, function.__name__)
    return entry(family, function, stock, overridable=True, bounds_of=of)


def _finite(stock: Callable[..., Result]) -> Callable[..., Result]:
    """PyTorch's power pooling but for infinite powers, of which it makes what is not a number."""

    def of_finite(input: torch.Tensor, norm_type: float, *args: Any, **kwargs: Any) -> Result:
        if norm_type in (math.inf, -math.inf):
            raise ValueError("a maximum is pooled in another way")
        return stock(input, norm_type, *args, **kwargs)

    return of_finite


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
