"""Power-average pooling over one to three axes (csrc/pool_lp.h has the definition)."""

from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Ints, Sizes, Tensor


class LpPoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    norm_type: float
    kernel_size: Ints
    stride: Ints
    output_size: Sizes

    def results(self) -> Tensor:
        """y (N, C, out...) in the layout of x."""
        return layout.resized(self.x, self.output_size)


class LpPoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C, out...)
    x: Tensor  # (N, C, in...)
    y: Tensor  # like grad_y
    norm_type: float
    kernel_size: Ints
    stride: Ints

    def results(self) -> Tensor:
        """grad_x, like x."""
        return layout.empty(self.x.shape, self.x)
