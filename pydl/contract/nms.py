"""Non-maximum suppression (csrc/nms.h has the definition)."""

from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Tensor


class NmsKeep(NamedTuple):
    boxes: Tensor  # (K, 4), in the order of descending scores
    classes: Tensor | None  # (K,): only boxes of one class suppress each other
    threshold: float

    def results(self) -> Tensor:
        """keep (K,) of uint8, 1 for a box that stays."""
        return layout.empty((self.boxes.shape[0],), self.boxes, dtype=torch.uint8)
