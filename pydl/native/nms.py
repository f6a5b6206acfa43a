"""Non-maximum suppression by the extension; definition and arguments in ``csrc/nms.h``."""

import torch

from pydl import layout
from pydl.contract.nms import NmsKeep
from pydl.native import Library


def nms_keep(library: Library, call: NmsKeep) -> torch.Tensor:
    boxes, classes, threshold = call
    keep, words = call.results(), None
    if library.name == "cuda":
        count = boxes.shape[0]
        words = layout.empty((count * -(-count // 64),), boxes, dtype=torch.int64)
    classes = None if classes is None else classes.contiguous()
    operands = boxes.contiguous().flatten(), classes, keep, words
    library.call("nms", *operands, threshold, on=boxes)
    return keep
