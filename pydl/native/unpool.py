"""Max unpooling by the extension; definitions and arguments in ``csrc/unpool.h``."""

import math
from collections.abc import Sequence

import torch

from pydl import layout
from pydl.contract.unpool import MaxUnpoolBackward, MaxUnpoolForward, check_positions
from pydl.native import Library

_RUN = 64  # kUnpoolRun of csrc/unpool.h


def _check(indices: torch.Tensor, size: Sequence[int]) -> None:
    """Raises for a position outside of a plane of this size, where looking does not wait for a
    GPU, whose kernels make NaN of it."""
    if indices.device.type == "cpu":
        check_positions(indices, size)


def max_unpool_forward(library: Library, call: MaxUnpoolForward) -> torch.Tensor:
    x, indices, output_size = call
    y, like = call.results(), layout.memory_format(x)
    reach = None
    if library.name == "cuda":
        _check(indices, output_size)
        runs = -(-math.prod(x.shape[2:]) // _RUN)
        reach = layout.empty((x.shape[0] * x.shape[1] * runs,), x, dtype=torch.int64)
    operands = layout.dense(x, like), layout.dense(indices, like)
    library.call("max_unpool_forward", *operands, y, reach, on=x)
    return y


def max_unpool_backward(library: Library, call: MaxUnpoolBackward) -> torch.Tensor:
    grad_y, indices = call
    grad_x = call.results()
    if library.name == "cuda":
        _check(indices, grad_y.shape[2:])
        operands = layout.dense(grad_y), layout.dense(indices)
    else:
        operands = grad_y.contiguous(), indices.contiguous()
    library.call("max_unpool_backward", *operands, grad_x, on=grad_y)
    return grad_x
