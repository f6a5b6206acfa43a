"""Max unpooling over one to three axes (csrc/unpool.h has the definition)."""

import math
from typing import NamedTuple

from pydl import layout
from pydl.contract.call import Ints, Sizes, Tensor


def check_positions(indices: Tensor, size: Ints) -> None:
    """Raises RuntimeError where one of these positions is outside a plane of this size.

    On a GPU it waits for the answer.
    """
    if indices.numel() == 0:
        return
    least, most = (int(value) for value in indices.aminmax())
    if least < 0 or most >= math.prod(size):
        raise RuntimeError(
            f"Found an invalid max index: {least if least < 0 else most} "
            f"(output volumes are of size {'x'.join(map(str, size))})"
        )


class MaxUnpoolForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    indices: Tensor  # like x, int64: flat positions in a plane of y
    output_size: Sizes

    def results(self) -> Tensor:
        """y (N, C, out...) in the layout of x."""
        return layout.resized(self.x, self.output_size)


class MaxUnpoolBackward(NamedTuple):
    grad_y: Tensor  # (N, C, out...)
    indices: Tensor  # (N, C, in...)

    def results(self) -> Tensor:
        """grad_x (N, C, in...), contiguous."""
        return layout.input_grad(self.grad_y, self.indices.shape, False)
