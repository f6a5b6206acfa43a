"""RoIAlign and RoI pooling from their definitions (csrc/roi.h has them in words)."""

import math
from collections.abc import Sequence

import torch

from pydl.contract.roi import (
    RoiAlignBackward,
    RoiAlignForward,
    RoiPoolBackward,
    RoiPoolForward,
    check_images,
)
from pydl.reference import in_full_precision

# Beyond this many pixels from the map's origin a float cannot tell neighbouring samples apart.
_FARTHEST = 2**22


def _interpolation(
    ends: torch.Tensor, bins: int, size: int, scale: float, samples: int, aligned: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """What the samples of a box along one axis are made of.

    Returns:
        The bin, the pixel and the weight of every tap (two per sample, as far as they are on the
        map and weigh anything), and the number of samples in a bin.
    """
    start, end = ends * scale - (0.5 if aligned else 0.0)
    if not (start.abs() < _FARTHEST and end.abs() < _FARTHEST):
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), ends[:0], 1.0
    extent = end - start if aligned else (end - start).clamp_min(1)
    length = extent / bins
    count = samples if samples > 0 else max(math.ceil(length.item()), 0)
    sample = torch.arange(count, device=ends.device).to(ends)
    first = start + torch.arange(bins, device=ends.device).to(ends) * length
    at = first[:, None] + (sample + 0.5) * length / count  # (bins, count)
    bin, which = ((at >= -1) & (at <= size)).nonzero(as_tuple=True)
    at = at[bin, which].clamp(0, size - 1)
    low = at.floor()
    bins_of = torch.cat([bin, bin])
    taps = torch.cat([low, (low + 1).clamp_max(size - 1)]).long()
    weights = torch.cat([1 - (at - low), at - low])
    weighs = weights != 0
    return bins_of[weighs], taps[weighs], weights[weighs], max(count, 1)


def _along(box: torch.Tensor, x: torch.Tensor, output_size: Sequence[int], arguments: tuple):
    """The interpolation of the rows and of the columns of a box on maps like ``x``."""
    return (
        _interpolation(box[2::2], output_size[0], x.shape[-2], *arguments),
        _interpolation(box[1::2], output_size[1], x.shape[-1], *arguments),
    )


@in_full_precision
def roi_align_forward(call: RoiAlignForward) -> torch.Tensor:
    """Box after box: the mean along the rows, then along the columns."""
    x, boxes, output_size, scale, sampling_ratio, aligned = call
    check_images(boxes, x.shape[0])
    results = [x.new_zeros(0, x.shape[1], *output_size)]
    for box in boxes if math.prod(output_size) > 0 else ():
        image = x[int(box[0])]
        rows, cols = _along(box, x, output_size, (scale, sampling_ratio, aligned))
        bins, pixels, weights, count = rows
        lines = image.new_zeros(x.shape[1], output_size[0], x.shape[3])
        lines = lines.index_add(1, bins, image[:, pixels] * weights[:, None]) / count
        bins, pixels, weights, count = cols
        y = image.new_zeros(x.shape[1], *output_size)
        y = y.index_add(2, bins, lines[..., pixels] * weights) / count
        results.append(y[None])
    y = torch.cat(results)
    return y if math.prod(output_size) > 0 else y.new_zeros(len(boxes), x.shape[1], *output_size)


@in_full_precision
def roi_align_backward(call: RoiAlignBackward) -> torch.Tensor:
    """Box after box: every tap adds its weighted share of its bin's gradient to its pixel."""
    grad_y, input_shape = call.grad_y, call.input_shape
    check_images(call.boxes, input_shape[0])
    grad_x = grad_y.new_zeros(tuple(input_shape))
    output_size = grad_y.shape[2:]
    for box, grad in zip(call.boxes, grad_y, strict=True) if math.prod(output_size) > 0 else ():
        rows, cols = _along(
            box, grad_x, output_size, (call.scale, call.sampling_ratio, call.aligned)
        )
        bins, pixels, weights, count = cols
        lines = grad.new_zeros(*grad.shape[:2], input_shape[3])
        lines = lines.index_add(2, pixels, grad[..., bins] * weights / count)
        bins, pixels, weights, count = rows
        share = lines[:, bins] * weights[:, None] / count
        grad_x[int(box[0])].index_add_(1, pixels, share)
    return grad_x


def _runs(ends: torch.Tensor, bins: int, size: int, scale: float) -> tuple[tuple[int, int], ...]:
    """The pixels [first, last) of each bin of a box along one axis."""
    start, end = (x.trunc() + (x - x.trunc()).mul(2).trunc() for x in ends * scale)  # C's round
    extent = end - start + 1
    if not extent.isfinite():
        return ((0, 0),) * bins
    length = extent.clamp_min(1) / bins
    edges = torch.arange(bins + 1, device=ends.device).to(ends) * length
    first = (edges[:-1].floor() + start).clamp(0, size).long()
    last = (edges[1:].ceil() + start).clamp(0, size).long()
    return tuple(zip(first.tolist(), last.tolist(), strict=True))


def _largest(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each row (C, pixels) and its place: the first of equals, the last NaN."""
    best, place = values[:, 0], torch.zeros_like(values[:, 0], dtype=torch.long)
    for pixel in range(1, values.shape[1]):
        value = values[:, pixel]
        takes = (value > best) | value.isnan()
        best, place = torch.where(takes, value, best), torch.where(takes, pixel, place)
    return best, place


@in_full_precision
def roi_pool_forward(call: RoiPoolForward) -> tuple[torch.Tensor, torch.Tensor]:
    """Box after box, bin after bin."""
    x, boxes, output_size, scale, index = call
    check_images(boxes, x.shape[0])
    shape = (len(boxes), x.shape[1], *output_size)
    y, taken = x.new_zeros(shape), torch.full(shape, -1, device=x.device)
    positions = torch.arange(x.shape[2] * x.shape[3], device=x.device).reshape(x.shape[2:])
    for k, box in enumerate(boxes if math.prod(output_size) > 0 else ()):
        rows = _runs(box[2::2], output_size[0], x.shape[2], scale)
        cols = _runs(box[1::2], output_size[1], x.shape[3], scale)
        for o, (top, bottom) in enumerate(rows):
            for p, (left, right) in enumerate(cols):
                if top < bottom and left < right:
                    bin = x[int(box[0]), :, top:bottom, left:right].flatten(1)
                    y[k, :, o, p], place = _largest(bin)
                    taken[k, :, o, p] = positions[top:bottom, left:right].flatten()[place]
    return y, taken if index else taken.new_empty(0)


@in_full_precision
def roi_pool_backward(call: RoiPoolBackward) -> torch.Tensor:
    """Box after box: every bin's gradient goes where its value came from."""
    input_shape = call.input_shape
    check_images(call.boxes, input_shape[0])
    grad_x = call.grad_y.new_zeros(tuple(input_shape)).flatten(2)
    for box, grad, taken in zip(
        call.boxes, call.grad_y.flatten(2), call.indices.flatten(2), strict=True
    ):
        share = torch.where(taken >= 0, grad, 0)
        grad_x[int(box[0])].scatter_add_(1, taken.clamp_min(0), share)
    return grad_x.reshape(tuple(input_shape))
