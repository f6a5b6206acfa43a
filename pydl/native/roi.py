"""RoIAlign and RoI pooling by the extension; definitions and arguments in ``csrc/roi.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library


def _flat(boxes: torch.Tensor) -> torch.Tensor:
    return boxes.contiguous().flatten()


def roi_align_forward(
    library: Library,
    x: torch.Tensor,
    boxes: torch.Tensor,
    output_size: Sequence[int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    y = layout.rois(x, boxes, output_size)
    operand = library.operand(x, layout.memory_format(x))
    arguments = operand, _flat(boxes), y, scale, sampling_ratio, aligned
    library.call("roi_align_forward", *arguments, on=x)
    return y


def roi_align_backward(
    library: Library,
    grad_y: torch.Tensor,
    boxes: torch.Tensor,
    input_shape: Sequence[int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
) -> torch.Tensor:
    grad_x = layout.input_grad(grad_y, input_shape, channels_last)
    operand = library.operand(grad_y, layout.chosen(channels_last))
    arguments = operand, _flat(boxes), grad_x, scale, sampling_ratio, aligned
    library.call("roi_align_backward", *arguments, on=grad_y)
    return grad_x


def roi_pool_forward(
    library: Library,
    x: torch.Tensor,
    boxes: torch.Tensor,
    output_size: Sequence[int],
    scale: float,
    index: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    y = layout.rois(x, boxes, output_size)
    taken = layout.rois(x, boxes, output_size, dtype=torch.int64) if index else None
    operand = library.operand(x, layout.memory_format(x))
    library.call("roi_pool_forward", operand, _flat(boxes), y, taken, scale, on=x)
    return y, taken if index else layout.nothing(x, dtype=torch.int64)


def roi_pool_backward(
    library: Library,
    grad_y: torch.Tensor,
    index: torch.Tensor,
    boxes: torch.Tensor,
    input_shape: Sequence[int],
    scale: float,
    channels_last: bool,
) -> torch.Tensor:
    grad_x = layout.input_grad(grad_y, input_shape, channels_last)
    like = layout.chosen(channels_last)
    operands = library.operand(grad_y, like), library.operand(index, like)
    library.call("roi_pool_backward", *operands, _flat(boxes), grad_x, scale, on=grad_y)
    return grad_x
