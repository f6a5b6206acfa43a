"""A layer that multiplies its input by a number."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class Gain(Layer, torch.nn.Module):
    """See :func:`pydl.functional.gain`.

    >>> pydl.nn.Gain(2.0)(torch.ones(1, 2)).tolist()
    [[2.0, 2.0]]
    """

    def __init__(self, factor: float, *, backend: str | None = None) -> None:
        super().__init__(backend=backend)
        self.factor = factor

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.gain(input, self.factor, backend=self._pydl_backend)
