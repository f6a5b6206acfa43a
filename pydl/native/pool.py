"""Max and average pooling by the extension; definitions and arguments in ``csrc/pool.h``."""

import torch

from pydl import layout
from pydl.contract.call import Pair
from pydl.contract.pool import AvgPoolBackward, AvgPoolForward, MaxPoolBackward, MaxPoolForward
from pydl.native import Library


def max_pool_forward(library: Library, call: MaxPoolForward) -> Pair:
    x, *window, _, index_form = call
    y, indices = call.results()
    operand = library.operand(x, layout.memory_format(x))
    kept = None if index_form == "none" else indices
    library.call("max_pool_forward", operand, y, kept, *window, on=x)
    return y, indices


def max_pool_backward(library: Library, call: MaxPoolBackward) -> torch.Tensor:
    grad_y, indices, _, *window = call
    grad_x, like = call.results(), layout.memory_format(indices)
    operands = library.operand(grad_y, like), library.operand(indices, like)
    library.call("max_pool_backward", *operands, grad_x, *window, on=grad_y)
    return grad_x


def avg_pool_forward(library: Library, call: AvgPoolForward) -> torch.Tensor:
    x, kernel_size, stride, padding, _, *divide = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    library.call("avg_pool_forward", operand, y, kernel_size, stride, padding, *divide, on=x)
    return y


def avg_pool_backward(library: Library, call: AvgPoolBackward) -> torch.Tensor:
    grad_y, _, *how, channels_last = call
    grad_x = call.results()
    operand = library.operand(grad_y, layout.chosen(channels_last, grad_y.ndim))
    library.call("avg_pool_backward", operand, grad_x, *how, on=grad_y)
    return grad_x
