"""Adaptive and pyramid pooling by the extension; definitions and arguments in
``csrc/pool_adaptive.h``."""

import torch

from pydl import layout
from pydl.contract.call import Pair
from pydl.contract.pool_adaptive import (
    AdaptiveAvgPoolBackward,
    AdaptiveAvgPoolForward,
    AdaptiveMaxPoolBackward,
    AdaptiveMaxPoolForward,
    PyramidPoolBackward,
    PyramidPoolForward,
    split,
)
from pydl.native import Library


def adaptive_avg_pool_forward(library: Library, call: AdaptiveAvgPoolForward) -> torch.Tensor:
    x, output_size = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    library.call("adaptive_pool_forward", operand, y, None, [output_size], False, False, on=x)
    return y


def adaptive_avg_pool_backward(library: Library, call: AdaptiveAvgPoolBackward) -> torch.Tensor:
    grad_y, _, channels_last = call
    grad_x = call.results()
    operand = library.operand(grad_y, layout.chosen(channels_last, grad_y.ndim))
    levels = [grad_y.shape[2:]]
    library.call("adaptive_pool_backward", operand, None, grad_x, levels, False, False, on=grad_y)
    return grad_x


def adaptive_max_pool_forward(library: Library, call: AdaptiveMaxPoolForward) -> Pair:
    x, output_size, index_form = call
    y, indices = call.results()
    operand = library.operand(x, layout.memory_format(x))
    kept = None if index_form == "none" else indices
    library.call("adaptive_pool_forward", operand, y, kept, [output_size], False, True, on=x)
    return y, indices


def adaptive_max_pool_backward(library: Library, call: AdaptiveMaxPoolBackward) -> torch.Tensor:
    grad_y, indices, _ = call
    grad_x, like = call.results(), layout.memory_format(indices)
    operands = library.operand(grad_y, like), library.operand(indices, like)
    levels = [grad_y.shape[2:]]
    library.call("adaptive_pool_backward", *operands, grad_x, levels, False, True, on=grad_y)
    return grad_x


def pyramid_pool_forward(library: Library, call: PyramidPoolForward) -> Pair:
    x, levels, kind, index_form = call
    y, indices = call.results()
    operand = library.operand(x, layout.memory_format(x))
    kept = None if index_form == "none" else indices.unsqueeze(2)
    bins = split(levels, x.ndim - 2), True, kind == "max"
    library.call("adaptive_pool_forward", operand, y.unsqueeze(2), kept, *bins, on=x)
    return y, indices


def pyramid_pool_backward(library: Library, call: PyramidPoolBackward) -> torch.Tensor:
    grad_y, indices, input_size, levels, kind, _ = call
    grad_x = call.results()
    operand = library.contiguous(grad_y).unsqueeze(2)
    kept = library.contiguous(indices).unsqueeze(2) if kind == "max" else None
    bins = split(levels, len(input_size) - 1), True, kind == "max"
    library.call("adaptive_pool_backward", operand, kept, grad_x, *bins, on=grad_y)
    return grad_x
