"""Non-maximum suppression."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import nms as ops


@overridable
def nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    iou_threshold: float,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Non-maximum suppression: goes through the boxes by descending score and keeps one unless a
    box kept before overlaps it by more than ``iou_threshold``.

    Overlap is intersection over union, without the pixel that older code adds to widths and
    heights; where it is NaN (two boxes without area) nothing is suppressed. Every backend keeps the
    same boxes.

    Equivalent to: ``if kept[i]: kept[i + 1 :] &= ~(iou[i, i + 1 :] > iou_threshold)`` for each box
    i by descending score, from ``kept`` all true.

    Args:
        boxes: (K, 4) as (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2; float32, float64, float16 or
            bfloat16. Overlaps are computed in float32, in float64 for float64.
        scores: (K,) of the same dtype. Among equal scores the first comes first; NaN comes before
            all.
        iou_threshold: 0 to 1.
        backend: as for :func:`roi_align`.

    Returns:
        The indices of the boxes kept, int64, by descending score. How many there are depends on
        the values, so ``torch.compile(fullgraph=True)`` needs
        ``torch._dynamo.config.capture_dynamic_output_shape_ops``.

    Raises:
        RuntimeError: shapes, devices or dtypes do not fit.
        TypeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: Girshick, Donahue, Darrell and Malik 2014, "Rich feature hierarchies"; torchvision's
    ``nms``.
    """
    return ops.nms("nms", boxes, scores, None, iou_threshold, backend)


@overridable
def batched_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor,
    iou_threshold: float,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Non-maximum suppression within each class: see :func:`nms`.

    Classes are compared as they are; boxes are not moved apart, which would round them.

    Equivalent to: :func:`nms` of each class alone, then ``kept[scores[kept].argsort(0, True)]``.

    Args:
        boxes, scores, iou_threshold, backend: as for :func:`nms`.
        idxs: (K,), the class of each box; integers.

    Returns:
        The indices of the boxes kept, of all classes, int64, by descending score.
    """
    return ops.nms("batched_nms", boxes, scores, idxs, iou_threshold, backend)
