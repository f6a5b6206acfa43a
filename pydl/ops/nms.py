"""Non-maximum suppression: checks, the order of the scores, the registered operator."""

import torch

from pydl import backends
from pydl.contract.nms import NmsKeep
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.registry import operator

_keep = operator(NmsKeep)


def nms(
    name: str,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor | None,
    threshold: float,
    backend: str | None,
) -> torch.Tensor:
    checks.tensor(name, "boxes", boxes)
    if boxes.is_quantized:
        raise RuntimeError(f"{name}: quantized tensors are not served; dequantize() them first")
    if name == "batched_nms" and boxes.numel() == 0:
        return boxes.new_empty(0, dtype=torch.int64)  # as torchvision, whatever else was given
    checks.tensor(name, "scores", scores)
    backend = backends.choose("nms", backend, boxes)
    boxes, scores = as_autocast("nms", boxes), as_autocast("nms", scores)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise RuntimeError(f"{name}: boxes should be a tensor (N, 4), but got {list(boxes.shape)}")
    if scores.ndim != 1 or len(scores) != len(boxes):
        raise RuntimeError(
            f"{name}: scores should be a tensor ({len(boxes)},), a number for each of the boxes, "
            f"but got {list(scores.shape)}"
        )
    checks.same_device_and_dtype(name, boxes, "scores", scores)
    if classes is not None:
        classes = _classes(name, boxes, classes)
    order = scores.detach().argsort(stable=True, descending=True)
    in_turn = None if classes is None else classes[order]
    keep = _keep(boxes.detach().resolve_neg()[order], in_turn, float(threshold), backend)
    return order[keep.bool()]


def _classes(name: str, boxes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    checks.tensor(name, "idxs", classes)
    if classes.is_floating_point() or classes.is_complex():
        raise RuntimeError(f"{name}: idxs should be integers, but got {classes.dtype}")
    if classes.ndim != 1 or len(classes) != len(boxes):
        raise RuntimeError(
            f"{name}: idxs should be a tensor ({len(boxes)},), a class for each of the boxes, "
            f"but got {list(classes.shape)}"
        )
    if classes.device != boxes.device:
        raise RuntimeError(
            f"{name}: expected all tensors to be on the same device, but boxes is on "
            f"{boxes.device} and idxs is on {classes.device}"
        )
    return classes.long()
