"""Argument checks and normalised windows, worded as PyTorch words them."""

from collections.abc import Sequence

import torch


def tensor(operator: str, argument: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{operator}(): argument '{argument}' must be Tensor, not {type(value).__name__}"
        )


def axes(
    operator: str, argument: str, value: int | Sequence[int], count: int, *, least: int
) -> list[int]:
    """``value`` as one integer a spatial axis.

    Args:
        least: the smallest integer accepted.

    Raises:
        TypeError: not an integer or a sequence of integers.
        RuntimeError: the wrong number of them, or one below ``least``.
    """
    given = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for one in given:
        if isinstance(one, bool) or not isinstance(one, int | torch.SymInt):
            raise TypeError(
                f"{operator}(): argument '{argument}' must be tuple of ints, not "
                f"{type(one).__name__}"
            )
    if len(given) not in (1, count):
        raise RuntimeError(
            f"{operator}: {argument} must either be a single int, or a tuple of {count} ints, "
            f"got {len(given)} values"
        )
    out = list(given) * count if len(given) == 1 else list(given)
    for one in out:
        if one < least:
            kind = "non-negative" if least == 0 else "greater than zero"
            raise RuntimeError(f"{operator}: {argument} should be {kind}, but got {list(given)}")
    return out


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
