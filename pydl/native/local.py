"""Locally connected layers by the extension; definitions in ``csrc/local.h``."""

import torch

from pydl.contract.local import LocalForward, LocalGradInput, LocalGradWeight
from pydl.native import Library

_CONTIGUOUS = torch.contiguous_format


def local_forward(library: Library, call: LocalForward) -> torch.Tensor:
    x, weight, bias, *window = call
    y = call.results()
    operands = library.operand(x, _CONTIGUOUS), library.operand(weight, _CONTIGUOUS)
    # The extension reads a bias per position as a map of one image.
    bias = None if bias is None else library.operand(bias, _CONTIGUOUS).unsqueeze(0)
    library.call("local_forward", *operands, bias, y, *window, on=x)
    return y


def local_grad_input(library: Library, call: LocalGradInput) -> torch.Tensor:
    grad_y, weight, _, *window = call
    grad_x = call.results()
    operands = library.operand(grad_y, _CONTIGUOUS), library.operand(weight, _CONTIGUOUS)
    library.call("local_grad_input", *operands, grad_x, *window, on=grad_y)
    return grad_x


def local_grad_weight(library: Library, call: LocalGradWeight) -> torch.Tensor:
    grad_y, x, *window = call
    grad_weight = call.results()
    operands = library.operand(grad_y, _CONTIGUOUS), library.operand(x, _CONTIGUOUS)
    library.call("local_grad_weight", *operands, grad_weight, *window, on=grad_y)
    return grad_weight
