"""Bias, residual and activation by the extension; definitions in ``csrc/bias_act.h``."""

import torch

from pydl import layout
from pydl.contract.bias_act import BiasActBackward, BiasActForward
from pydl.native import Library


def bias_act_forward(library: Library, call: BiasActForward) -> torch.Tensor:
    x, bias, residual, *epilogue = call
    y, like = call.results(), layout.memory_format(x)
    residual = None if residual is None else library.operand(residual, like)
    bias = None if bias is None else library.contiguous(bias)
    x = library.operand(x, like)
    library.call("bias_act_forward", x, bias, residual, y, *epilogue, on=x)
    return y


def bias_act_backward(library: Library, call: BiasActBackward) -> torch.Tensor:
    grad_y, saved, *epilogue = call
    grad_x, like = call.results(), layout.memory_format(saved)
    operands = library.operand(grad_y, like), library.operand(saved, like)
    library.call("bias_act_backward", *operands, grad_x, *epilogue, on=grad_y)
    return grad_x
