"""Max unpooling by the extension; definitions and arguments in ``csrc/unpool.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.indices import check_positions
from pydl.native import Library


def max_unpool_forward(
    library: Library, x: torch.Tensor, index: torch.Tensor, output_size: Sequence[int]
) -> torch.Tensor:
    like = layout.memory_format(x)
    y = layout.resized(x, output_size)
    winner = None
    if library.name == "cuda":  # which cannot raise from inside its kernels
        check_positions(index, output_size)
        winner = layout.resized(x, output_size, dtype=torch.int64).zero_()
    operands = library.operand(x, like), library.operand(index, like)
    library.call("max_unpool_forward", *operands, y, winner, on=x)
    return y


def max_unpool_backward(
    library: Library, grad_y: torch.Tensor, index: torch.Tensor
) -> torch.Tensor:
    grad_x = layout.input_grad(grad_y, index.shape, False)
    if library.name == "cuda":
        check_positions(index, grad_y.shape[2:])
    operands = library.contiguous(grad_y), library.contiguous(index)
    library.call("max_unpool_backward", *operands, grad_x, on=grad_y)
    return grad_x
