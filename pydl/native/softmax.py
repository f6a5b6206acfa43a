"""Softmax along one axis by the extension; definition and arguments in ``csrc/softmax.h``."""

import torch

from pydl import layout
from pydl.native import Library


def softmax_forward(library: Library, x: torch.Tensor, dim: int, log: bool) -> torch.Tensor:
    y = layout.empty(x.shape, x)
    operand = library.operand(x, layout.memory_format(x))
    library.call("softmax_forward", *(layout.columns(t, dim) for t in (operand, y)), log, on=x)
    return y


def softmax_backward(
    library: Library, grad_y: torch.Tensor, y: torch.Tensor, dim: int, log: bool
) -> torch.Tensor:
    like = layout.memory_format(y)
    grad_x = layout.empty(y.shape, y)
    tensors = library.operand(grad_y, like), library.operand(y, like), grad_x
    library.call("softmax_backward", *(layout.columns(t, dim) for t in tensors), log, on=y)
    return grad_x
