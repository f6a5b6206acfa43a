"""Response normalisation within a channel by the extension; definition and arguments in
``csrc/spatial_norm.h``."""

import torch

from pydl import layout
from pydl.native import Library


def spatial_norm_forward(
    library: Library, x: torch.Tensor, size: int, alpha: float, beta: float, k: float
) -> torch.Tensor:
    y = layout.empty(x.shape, x)
    library.call(
        "spatial_norm_forward",
        library.operand(x, layout.memory_format(x)),
        y,
        size,
        _rate(x, size, alpha),
        beta,
        k,
        on=x,
    )
    return y


def spatial_norm_backward(
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
    term = None
    if library.name == "cuda":
        wide = layout.sums_dtype(x)
        term = layout.empty(x.shape, x, dtype=wide)
    library.call(
        "spatial_norm_backward",
        library.operand(grad_y, like),
        library.operand(x, like),
        grad_x,
        term,
        size,
        _rate(x, size, alpha),
        beta,
        k,
        on=x,
    )
    return grad_x


def _rate(x: torch.Tensor, size: int, alpha: float) -> float:
    return alpha / float(size) ** (x.ndim - 2)
