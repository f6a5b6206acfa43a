"""Bias, residual and activation of a map (csrc/bias_act.h has the definition)."""

from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Tensor


class BiasActForward(NamedTuple):
    x: Tensor  # (N, C, ...)
    bias: Tensor | None  # (C,)
    residual: Tensor | None  # like x
    activation: str
    slope: float

    def results(self) -> Tensor:
        """y, like x."""
        return layout.empty(self.x.shape, self.x)


class BiasActBackward(NamedTuple):
    grad_y: Tensor  # (N, C, ...)
    saved: Tensor  # like grad_y: the activation's input or, where that suffices, its output
    activation: str
    slope: float

    def results(self) -> Tensor:
        """grad_x, like what was saved."""
        return layout.empty(self.saved.shape, self.saved)
