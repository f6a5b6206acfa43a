"""Power-average pooling by the extension; definitions and arguments in ``csrc/pool_lp.h``."""

import torch

from pydl import layout
from pydl.contract.pool_lp import LpPoolBackward, LpPoolForward
from pydl.native import Library


def lp_pool_forward(library: Library, call: LpPoolForward) -> torch.Tensor:
    x, *window, _ = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    library.call("lp_pool_forward", operand, y, *window, on=x)
    return y


def lp_pool_backward(library: Library, call: LpPoolBackward) -> torch.Tensor:
    grad_y, x, y, *window = call
    grad_x, like = call.results(), layout.memory_format(x)
    operands = [library.operand(tensor, like) for tensor in (grad_y, x, y)]
    library.call("lp_pool_backward", *operands, grad_x, *window, on=x)
    return grad_x
