"""What every pooling asks of its input and of its windows, how many windows there are, and how
PyTorch's own pooling is called."""

from collections.abc import Callable, Sequence
from operator import index, is_
from typing import Any, TypeVar

import torch

from pydl import plan
from pydl.ops import checks

Window = tuple[list[int], list[int], list[int], list[int]]
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
    checks.rank(operator_name, x, axes)
    if 0 in x.shape[-axes - 1 :]:
        raise RuntimeError(
            f"Expected {axes + 1}D or {axes + 2}D (batch mode) tensor with optional 0 dim batch "
            "size for input to "
            f"{operator_name}, but got: {list(x.shape)}"
        )
    return (x if x.ndim == axes + 2 else x.unsqueeze(0)).resolve_neg()


def unbatched(y: torch.Tensor, x: torch.Tensor, axes: int) -> torch.Tensor:
    """The result of a pooling as the input ``x`` came: with a batch or without, of rows or maps."""
    y = y.squeeze(2) if axes == 1 else y
    return y.squeeze(0) if x.ndim == axes + 1 else y


def windows(
    name: str,
    axes: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> Window:
    """Kernel, stride, padding and dilation, one integer per axis each, checked."""
    kernel = checks.axes(name, "kernel_size", kernel_size, axes, least=1)
    # An absent stride is None in Python and an empty list in PyTorch's own schemas.
    stride = (
        kernel
        if stride is None or (isinstance(stride, Sequence) and not stride)
        else checks.axes(name, "stride", stride, axes, least=1)
    )
    padding = checks.axes(name, "padding", padding, axes, least=0)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, "
                f"but got pad={p}, kernel_size={k} and dilation={d}"
            )
    return kernel, stride, padding, dilation


def outputs(name: str, x: torch.Tensor, window: Window, ceil_mode: bool) -> list[int]:
    """floor((n + 2p - d(k - 1) - 1) / s) + 1; ceil mode rounds up, but for a window that would
    start beyond the input."""
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], *window, strict=True):
        reach = n + 2 * p - d * (k - 1) - 1
        out = (reach + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= n + p:
            out -= 1
        sizes.append(out)
    if min(sizes) < 1:
        raise RuntimeError(
            f"{name}: Given input size: {tuple(x.shape[1:])}. Calculated output size: "
            f"{(x.shape[1], *sizes)}. "
            "Output size is too small"
        )
    return sizes


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
