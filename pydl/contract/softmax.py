"""Softmax and its logarithm along one axis (csrc/softmax.h has the definition)."""

from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Tensor


class SoftmaxForward(NamedTuple):
    x: Tensor  # any shape
    dim: int
    log: bool

    def results(self) -> Tensor:
        """y, like x."""
        return layout.empty(self.x.shape, self.x)


class SoftmaxBackward(NamedTuple):
    grad_y: Tensor  # any shape
    y: Tensor  # like grad_y
    dim: int
    log: bool

    def results(self) -> Tensor:
        """grad_x, like y."""
        return layout.empty(self.y.shape, self.y)
