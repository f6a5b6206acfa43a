"""Argument checks, worded as PyTorch words them; those that look at no tensor are
pydl/shapes.py's."""

import torch

from pydl import shapes
from pydl.shapes import axes as axes
from pydl.shapes import integer as integer
from pydl.shapes import rank as rank

shapes.SYMBOLS = (torch.SymInt,)


def tensor(operator: str, argument: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{operator}(): argument '{argument}' must be Tensor, not {type(value).__name__}"
        )


def autocast_dtype(x: torch.Tensor) -> torch.dtype | None:
    """The low precision of autocast on the device of ``x``; None where it is off there, or the
    device, such as meta, has none."""
    if not torch._C._is_any_autocast_enabled():
        return None
    device = x.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


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
