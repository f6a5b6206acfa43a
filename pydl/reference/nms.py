"""Non-maximum suppression from its definition (csrc/nms.h has it in words)."""

import torch

from pydl.contract.nms import NmsKeep


def _overlaps(boxes: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every two boxes."""
    x1, y1, x2, y2 = boxes.unbind(1)
    area = (x2 - x1) * (y2 - y1)
    width = torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1)
    height = torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1)
    inter = width.clamp_min(0) * height.clamp_min(0)
    return inter / (area[:, None] + area - inter)


def nms_keep(call: NmsKeep) -> torch.Tensor:
    """Box after box, best first."""
    boxes, classes, threshold = call
    half = boxes.dtype in (torch.float16, torch.bfloat16)
    suppresses = _overlaps(boxes.float() if half else boxes).double() > threshold
    if classes is not None:
        suppresses &= classes[:, None] == classes
    keep = torch.ones(len(boxes), dtype=torch.uint8, device=boxes.device)
    later = torch.arange(len(boxes), device=boxes.device)
    for i in range(len(boxes)):
        if keep[i]:
            keep[suppresses[i] & (later > i)] = 0
    return keep
