"""A map times a number."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import gain as ops


@overridable
def gain(input: torch.Tensor, factor: float, *, backend: str | None = None) -> torch.Tensor:
    """``factor * input``, in the layout of the input."""
    return ops.gain(input, factor, backend)
