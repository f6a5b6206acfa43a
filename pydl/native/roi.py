"""RoIAlign and RoI pooling by the extension; definitions and arguments in ``csrc/roi.h``."""

import torch

from pydl import layout
from pydl.contract.call import Pair
from pydl.contract.roi import RoiAlignBackward, RoiAlignForward, RoiPoolBackward, RoiPoolForward
from pydl.native import Library


def _flat(boxes: torch.Tensor) -> torch.Tensor:
    return boxes.contiguous().flatten()


def roi_align_forward(library: Library, call: RoiAlignForward) -> torch.Tensor:
    x, boxes, _, *align = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    library.call("roi_align_forward", operand, _flat(boxes), y, *align, on=x)
    return y


def roi_align_backward(library: Library, call: RoiAlignBackward) -> torch.Tensor:
    grad_y, boxes, _, *align, channels_last = call
    grad_x = call.results()
    operand = library.operand(grad_y, layout.chosen(channels_last))
    library.call("roi_align_backward", operand, _flat(boxes), grad_x, *align, on=grad_y)
    return grad_x


def roi_pool_forward(library: Library, call: RoiPoolForward) -> Pair:
    x, boxes, _, scale, keep_indices = call
    y, indices = call.results()
    operand = library.operand(x, layout.memory_format(x))
    kept = indices if keep_indices else None
    library.call("roi_pool_forward", operand, _flat(boxes), y, kept, scale, on=x)
    return y, indices


def roi_pool_backward(library: Library, call: RoiPoolBackward) -> torch.Tensor:
    grad_y, indices, boxes, _, scale, channels_last = call
    grad_x, like = call.results(), layout.chosen(channels_last)
    operands = library.operand(grad_y, like), library.operand(indices, like)
    library.call("roi_pool_backward", *operands, _flat(boxes), grad_x, scale, on=grad_y)
    return grad_x
