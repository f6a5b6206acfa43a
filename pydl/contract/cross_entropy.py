"""Cross entropy (csrc/cross_entropy.h has the definition)."""

from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Four, Tensor


class CrossEntropyForward(NamedTuple):
    x: Tensor  # (N, C, ...)
    target: Tensor  # (N, ...) of int64, or probabilities like x
    weight: Tensor | None  # (C,)
    ignore_index: int
    label_smoothing: float
    reduction: str  # none, mean or sum

    def results(self) -> Four:
        """The loss, a number or one per position; peak and total of each position and the mean's
        divisor, in the dtype that sums are taken in."""
        x = self.x
        positions = (x.shape[0], *x.shape[2:])
        saved, plain = layout.sums_dtype(x), torch.contiguous_format
        return (
            layout.empty(positions if self.reduction == "none" else (), x, layout=plain),
            layout.empty(positions, x, dtype=saved, layout=plain),
            layout.empty(positions, x, dtype=saved, layout=plain),
            layout.empty((), x, dtype=saved, layout=plain),
        )


class CrossEntropyBackward(NamedTuple):
    grad_loss: Tensor  # a number, or one per position
    x: Tensor  # (N, C, ...)
    target: Tensor
    weight: Tensor | None
    peak: Tensor  # (N, ...)
    total: Tensor  # (N, ...)
    divisor: Tensor  # a number
    ignore_index: int
    label_smoothing: float
    reduction: str

    def results(self) -> Tensor:
        """grad_x, like x."""
        return layout.empty(self.x.shape, self.x)
