"""What every pooling does with its input and its result, and how PyTorch's own pooling is
called."""

from collections.abc import Callable
from operator import index, is_
from typing import Any, TypeVar

import torch

from pydl import plan, shapes
from pydl.shapes import Window

Result = TypeVar("Result")


def by_pytorch(function: Callable[..., Result], x: torch.Tensor, *arguments: object) -> Result:
    """``function(x, *arguments)``, an operator of PyTorch's. Some of these take Python's own
    integers only, others whatever has ``__index__``: those get what they take."""
    try:
        return plan.step(function, x, *arguments)
    except (TypeError, RuntimeError):
        plain = [_plain(argument) for argument in arguments]
        if all(map(is_, plain, arguments)):
            raise
    return plan.step(function, x, *plain)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        plain = tuple(map(_plain, value))
        return value if all(map(is_, plain, value)) else plain
    whole = type(value) is not bool and hasattr(value, "__index__")
    return index(value) if whole and getattr(value, "ndim", 0) == 0 else value


def refused(error: Exception, function: Callable[..., object], *arguments: object) -> Exception:
    """What to raise where the checks here refuse a call: what PyTorch's operator says to it, or
    ``error`` if that takes it."""
    try:
        function(*arguments)
    except Exception as own:  # whatever it is, it is what the caller would see of PyTorch
        return own
    return error


def batched(operator_name: str, x: torch.Tensor, axes: int) -> torch.Tensor:
    """The input as (N, C, spatial...), its axes checked."""
    shapes.poolable(operator_name, x, axes)
    return (x if x.ndim == axes + 2 else x.unsqueeze(0)).resolve_neg()


def unbatched(y: torch.Tensor, x: torch.Tensor, axes: int) -> torch.Tensor:
    """The result of a pooling as the input ``x`` came: with a batch or without, of rows or maps."""
    y = y.squeeze(2) if axes == 1 else y
    return y.squeeze(0) if x.ndim == axes + 1 else y


def of_maps(
    batch: torch.Tensor, window: Window, output_size: list[int]
) -> tuple[torch.Tensor, Window, list[int]]:
    """The same pooling with two axes where it has one: of maps with one row, which is how PyTorch
    pools lines and why a line's channels can be neighbours in a result of its."""
    if batch.ndim != 3:
        return batch, window, output_size
    kernel, stride, padding, dilation = window
    return (
        batch.unsqueeze(2),
        ([1, *kernel], [1, *stride], [0, *padding], [1, *dilation]),
        [1, *output_size],
    )
