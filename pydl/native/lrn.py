"""Local response normalisation by the extension; definition and arguments in ``csrc/lrn.h``."""

import torch

from pydl import layout
from pydl.native import Library


def lrn_forward(
    library: Library, x: torch.Tensor, size: int, alpha: float, beta: float, k: float
) -> torch.Tensor:
    y = layout.empty(x.shape, x)
    library.call(
        "lrn_forward", library.operand(x, layout.memory_format(x)), y, size, alpha, beta, k, on=x
    )
    return y


def lrn_backward(
    library: Library,
    grad_y: torch.Tensor,
    x: torch.Tensor,
    size: int,
    alpha: float,
    beta: float,
    k: float,
) -> torch.Tensor:
    grad_x = layout.empty(x.shape, x)
    like = layout.memory_format(x)
    library.call(
        "lrn_backward",
        library.operand(grad_y, like),
        library.operand(x, like),
        grad_x,
        size,
        alpha,
        beta,
        k,
        on=x,
    )
    return grad_x
