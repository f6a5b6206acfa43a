"""Power-average pooling by the extension; definitions and arguments in ``csrc/pool_lp.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.native import Library


def lp_pool_forward(
    library: Library,
    x: torch.Tensor,
    norm_type: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    output_size: Sequence[int],
) -> torch.Tensor:
    y = layout.resized(x, output_size)
    operand = library.operand(x, layout.memory_format(x))
    library.call("lp_pool_forward", operand, y, norm_type, kernel_size, stride, on=x)
    return y


def lp_pool_backward(
    library: Library,
    grad_y: torch.Tensor,
    x: torch.Tensor,
    y: torch.Tensor,
    norm_type: float,
    kernel_size: Sequence[int],
    stride: Sequence[int],
) -> torch.Tensor:
    like = layout.memory_format(x)
    grad_x = layout.empty(x.shape, x)
    operands = [library.operand(tensor, like) for tensor in (grad_y, x, y)]
    library.call("lp_pool_backward", *operands, grad_x, norm_type, kernel_size, stride, on=x)
    return grad_x
