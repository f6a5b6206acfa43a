"""Local response normalisation across channels (csrc/lrn.h has the definition)."""

from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Tensor


class LrnForward(NamedTuple):
    x: Tensor  # (N, C, ...)
    size: int
    alpha: float
    beta: float
    k: float

    def results(self) -> Tensor:
        """y, like x."""
        return layout.empty(self.x.shape, self.x)


class LrnBackward(NamedTuple):
    grad_y: Tensor  # (N, C, ...)
    x: Tensor  # like grad_y
    size: int
    alpha: float
    beta: float
    k: float

    def results(self) -> Tensor:
        """grad_x, like x."""
        return layout.empty(self.x.shape, self.x)
