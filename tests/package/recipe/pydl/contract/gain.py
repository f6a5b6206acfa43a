"""A map times a number (csrc/gain.h has the definition)."""

from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Tensor


class GainForward(NamedTuple):
    x: Tensor  # (N, C, ...)
    factor: float

    def results(self) -> Tensor:
        """y, like x."""
        return layout.empty(self.x.shape, self.x)
