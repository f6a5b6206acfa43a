"""Max unpooling by the extension; definitions and arguments in ``csrc/unpool.h``."""

import torch

from pydl import layout
from pydl.contract.unpool import MaxUnpoolBackward, MaxUnpoolForward, check_positions
from pydl.native import Library


def max_unpool_forward(library: Library, call: MaxUnpoolForward) -> torch.Tensor:
    x, indices, output_size = call
    y, like = call.results(), layout.memory_format(x)
    winner = None
    if library.name == "cuda":  # which cannot raise from inside its kernels
        check_positions(indices, output_size)
        winner = layout.resized(x, output_size, dtype=torch.int64).zero_()
    operands = library.operand(x, like), library.operand(indices, like)
    library.call("max_unpool_forward", *operands, y, winner, on=x)
    return y


def max_unpool_backward(library: Library, call: MaxUnpoolBackward) -> torch.Tensor:
    grad_y, indices = call
    grad_x = call.results()
    if library.name == "cuda":
        check_positions(indices, grad_y.shape[2:])
    operands = library.contiguous(grad_y), library.contiguous(indices)
    library.call("max_unpool_backward", *operands, grad_x, on=grad_y)
    return grad_x
