"""Response normalisation within a channel by the extension; definition and arguments in
``csrc/spatial_norm.h``."""

import torch

from pydl import layout
from pydl.contract.spatial_norm import SpatialNormBackward, SpatialNormForward
from pydl.native import Library


def spatial_norm_forward(library: Library, call: SpatialNormForward) -> torch.Tensor:
    x, size, alpha, beta, k = call
    y = call.results()
    operand = library.operand(x, layout.memory_format(x))
    constants = size, _rate(x, size, alpha), beta, k
    library.call("spatial_norm_forward", operand, y, *constants, on=x)
    return y


def spatial_norm_backward(library: Library, call: SpatialNormBackward) -> torch.Tensor:
    grad_y, x, size, alpha, beta, k = call
    grad_x, like = call.results(), layout.memory_format(x)
    term = None
    if library.name == "cuda":
        term = layout.empty(x.shape, x, dtype=layout.sums_dtype(x))
    operands = library.operand(grad_y, like), library.operand(x, like)
    constants = size, _rate(x, size, alpha), beta, k
    library.call("spatial_norm_backward", *operands, grad_x, term, *constants, on=x)
    return grad_x


def _rate(x: torch.Tensor, size: int, alpha: float) -> float:
    return alpha / float(size) ** (x.ndim - 2)
