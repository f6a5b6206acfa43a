"""Argument checks and normalised windows, worded as PyTorch words them."""

from collections.abc import Sequence
from operator import index
from typing import Any

import torch


def tensor(operator: str, argument: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{operator}(): argument '{argument}' must be Tensor, not {type(value).__name__}"
        )


def integer(operator: str, argument: str, value: Any, kind: str = "int") -> int:
    """``value`` as an int: one of Python's, of NumPy's, a SymInt, or anything with ``__index__``.

    Raises:
        TypeError: it is none, or a bool.
    """
    if type(value) is int or isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]  # a SymInt passes for an int everywhere
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{operator}(): argument '{argument}' must be {kind}, not {type(value).__name__}"
        )
    return index(value)


def axes(
    operator: str, argument: str, value: int | Sequence[int], count: int, *, least: int
) -> list[int]:
    """``value`` as one integer per spatial axis.

    Args:
        least: the smallest integer accepted.

    Raises:
        TypeError: not an integer or a sequence of integers.
        RuntimeError: the wrong number of them, or one below ``least``.
    """
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    given = [integer(operator, argument, one, "tuple of ints") for one in many]
    if len(given) not in (1, count):
        raise RuntimeError(
            f"{operator}: {argument} must either be a single int, or a tuple of {count} ints, "
            f"got {len(given)} values"
        )
    out = given * count if len(given) == 1 else given
    for one in out:
        if one < least:
            kind = "non-negative" if least == 0 else "greater than zero"
            raise RuntimeError(f"{operator}: {argument} should be {kind}, but got {given}")
    return out


def autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """The low precision of autocast on the device of ``x``; None where it is off there, or the
    device, such as meta, has none."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def rank(operator: str, x: torch.Tensor, spatial: int) -> None:
    """Accepts (N, C, spatial...) and the unbatched (C, spatial...)."""
    if x.ndim not in (spatial + 1, spatial + 2):
        raise RuntimeError(
            f"Expected {spatial + 1}D (unbatched) or {spatial + 2}D (batched) input to {operator}, "
            f"but got input of size: {list(x.shape)}"
        )


def same_device_and_dtype(operator: str, x: torch.Tensor, name: str, other: torch.Tensor) -> None:
    if other.device != x.device:
        raise RuntimeError(
            f"{operator}: expected all tensors to be on the same device, "
            f"but input is on {x.device} and {name} is on {other.device}"
        )
    if other.dtype != x.dtype:
        raise RuntimeError(
            f"{operator}: input type ({x.dtype}) and {name} type ({other.dtype}) should be the same"
        )
