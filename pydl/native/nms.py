"""Non-maximum suppression by the extension; definition and arguments in ``csrc/nms.h``."""

import torch

from pydl import layout
from pydl.native import Library


def nms_keep(
    library: Library, boxes: torch.Tensor, classes: torch.Tensor | None, threshold: float
) -> torch.Tensor:
    count = boxes.shape[0]
    keep = layout.empty((count,), boxes, dtype=torch.uint8)
    words = None
    if library.name == "cuda":
        words = layout.empty((count * -(-count // 64),), boxes, dtype=torch.int64)
    classes = None if classes is None else classes.contiguous()
    operands = boxes.contiguous().flatten(), classes, keep, words
    library.call("nms", *operands, threshold, on=boxes)
    return keep
