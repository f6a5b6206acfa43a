"""What a user of stock PyTorch would write; the operators and models of this package are compared
with it."""

import copy
import itertools

import torch
from torch.nn import functional

from pydl.nn.layer import Layer
from pydl.nn.roi import RoIAlign, RoIPool


def as_torch(model: torch.nn.Module) -> torch.nn.Module:
    """A copy of ``model`` made of torch.nn's layers, with the same parameters and buffers.

    A layer that torch.nn has no counterpart of, or not with its options, is the backend
    ``aten``'s: what one would write with PyTorch's operators; a pool of regions, which has none of
    these either, the backend ``reference``'s.
    """
    shared = itertools.chain(model.parameters(), model.buffers())
    made = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    for layer in made.modules():
        if not isinstance(layer, Layer):
            continue
        cls = type(layer)
        ours = cls.__module__.startswith("pydl.nn.") and "_pydl_options" not in vars(layer)
        counterpart = getattr(torch.nn, cls.__name__, None) if ours else None
        if counterpart is None:
            layer.backend = "reference" if isinstance(layer, (RoIAlign, RoIPool)) else "aten"
        else:
            layer.__class__ = counterpart
            for own in ("__module__", "_pydl_backend"):  # which a layer here keeps in itself
                vars(layer).pop(own, None)
    return made


def roi_align(
    input: torch.Tensor,
    boxes: torch.Tensor,
    output_size: int,
    spatial_scale: float,
    sampling_ratio: int,
) -> torch.Tensor:
    """All samples of all boxes by one ``grid_sample``, their means by ``avg_pool2d``.

    Of one image, boxes within it, a fixed number of samples, without ``aligned``; square bins.
    """
    channels, height, width = input.shape[1:]
    start, end = (boxes[:, 1:] * spatial_scale).chunk(2, 1)
    count = output_size * sampling_ratio
    share = ((torch.arange(count, device=input.device) + 0.5) / count).to(input)
    at = start[..., None] + share * (end - start).clamp_min(1)[..., None]  # (K, 2, count)
    x, y = at[:, 0] * (2 / (width - 1)) - 1, at[:, 1] * (2 / (height - 1)) - 1
    shape = len(boxes), count, count
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], -1)
    grid = grid.reshape(1, -1, count, 2)
    sampled = functional.grid_sample(input, grid, padding_mode="border", align_corners=True)
    bins = functional.avg_pool2d(sampled, sampling_ratio)
    return bins.reshape(channels, len(boxes), output_size, output_size).transpose(0, 1)


def roi_pool(
    input: torch.Tensor, boxes: torch.Tensor, output_size: int, spatial_scale: float
) -> torch.Tensor:
    """``adaptive_max_pool2d`` of the part of the map under each box: the same bins for boxes within
    the map."""
    corners = torch.cat([boxes[:, :1], (boxes[:, 1:] * spatial_scale).round()], 1).long()
    pooled = [
        functional.adaptive_max_pool2d(input[n, :, y1 : y2 + 1, x1 : x2 + 1], output_size)
        for n, x1, y1, x2, y2 in corners.tolist()
    ]
    return torch.stack(pooled)


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """All overlaps at once, then one row of them per box."""
    order = scores.argsort(descending=True, stable=True)
    x1, y1, x2, y2 = boxes[order].unbind(1)
    area = (x2 - x1) * (y2 - y1)
    width = (torch.minimum(x2[:, None], x2) - torch.maximum(x1[:, None], x1)).clamp_min(0)
    height = (torch.minimum(y2[:, None], y2) - torch.maximum(y1[:, None], y1)).clamp_min(0)
    inter = width * height
    suppresses = (inter / (area[:, None] + area - inter) > iou_threshold).triu(1)
    left = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if left[i]:
            left &= ~suppresses[i]
    return order[left]
