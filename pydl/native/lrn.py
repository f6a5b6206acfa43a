"""Local response normalisation by the extension; definition and arguments in ``csrc/lrn.h``."""

import torch

from pydl import layout
from pydl.contract.lrn import LrnBackward, LrnForward
from pydl.native import Library


def lrn_forward(library: Library, call: LrnForward) -> torch.Tensor:
    x, *constants = call
    y = call.results()
    library.call("lrn_forward", library.operand(x, layout.memory_format(x)), y, *constants, on=x)
    return y


def lrn_backward(library: Library, call: LrnBackward) -> torch.Tensor:
    grad_y, x, *constants = call
    grad_x, like = call.results(), layout.memory_format(x)
    operands = library.operand(grad_y, like), library.operand(x, like)
    library.call("lrn_backward", *operands, grad_x, *constants, on=x)
    return grad_x
