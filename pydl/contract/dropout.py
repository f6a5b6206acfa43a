"""Dropout (csrc/dropout.h has the definition). The mask is computed again from the seed, not
kept."""

from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Tensor


class DropoutForward(NamedTuple):
    x: Tensor  # any shape
    p: float
    seed: Tensor  # a number of int64, on the CPU

    def results(self) -> Tensor:
        """y, like x."""
        return layout.empty(self.x.shape, self.x)


class DropoutBackward(NamedTuple):
    grad_y: Tensor  # any shape
    p: float
    seed: Tensor
    channels_last: bool

    def results(self) -> Tensor:
        """grad_x, channels last as told: the mask goes by the order of memory."""
        return layout.empty(self.grad_y.shape, layout.ordered(self.grad_y, self.channels_last))
