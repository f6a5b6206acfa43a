"""Softmax along one axis by the extension; definition and arguments in ``csrc/softmax.h``."""

import torch

from pydl import layout
from pydl.contract.softmax import SoftmaxBackward, SoftmaxForward
from pydl.native import Library


def softmax_forward(library: Library, call: SoftmaxForward) -> torch.Tensor:
    x, dim, log = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    library.call("softmax_forward", *(layout.columns(t, dim) for t in (operand, y)), log, on=x)
    return y


def softmax_backward(library: Library, call: SoftmaxBackward) -> torch.Tensor:
    grad_y, y, dim, log = call
    grad_x, like = call.results(), layout.memory_format(y)
    tensors = library.operand(grad_y, like), library.operand(y, like), grad_x
    library.call("softmax_backward", *(layout.columns(t, dim) for t in tensors), log, on=y)
    return grad_x
