"""Adaptive and pyramid pooling by the extension; definitions and arguments in
``csrc/pool_adaptive.h``."""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.bins import split
from pydl.native import Library

_INDEX_DTYPE = {"offset": torch.uint8, "flat": torch.int64}


def adaptive_avg_pool_forward(
    library: Library, x: torch.Tensor, output_size: Sequence[int]
) -> torch.Tensor:
    y = layout.resized(x, output_size)
    operand = library.operand(x, layout.memory_format(x))
    library.call("adaptive_pool_forward", operand, y, None, [output_size], False, False, on=x)
    return y


def adaptive_avg_pool_backward(
    library: Library, grad_y: torch.Tensor, input_size: Sequence[int], channels_last: bool
) -> torch.Tensor:
    grad_x = layout.input_grad(grad_y, (*grad_y.shape[:2], *input_size), channels_last)
    operand = library.operand(grad_y, layout.chosen(channels_last, grad_y.ndim))
    levels = [grad_y.shape[2:]]
    library.call("adaptive_pool_backward", operand, None, grad_x, levels, False, False, on=grad_y)
    return grad_x


def adaptive_max_pool_forward(
    library: Library, x: torch.Tensor, output_size: Sequence[int], index: str
) -> tuple[torch.Tensor, torch.Tensor]:
    y = layout.resized(x, output_size)
    taken = layout.resized(x, output_size, dtype=_INDEX_DTYPE[index]) if index != "none" else None
    operand = library.operand(x, layout.memory_format(x))
    library.call("adaptive_pool_forward", operand, y, taken, [output_size], False, True, on=x)
    return y, layout.empty((0,), x, dtype=torch.uint8) if taken is None else taken


def adaptive_max_pool_backward(
    library: Library, grad_y: torch.Tensor, index: torch.Tensor, input_size: Sequence[int]
) -> torch.Tensor:
    like = layout.memory_format(index)
    grad_x = layout.resized(index, input_size, dtype=grad_y.dtype)
    operands = library.operand(grad_y, like), library.operand(index, like)
    levels = [grad_y.shape[2:]]
    library.call("adaptive_pool_backward", *operands, grad_x, levels, False, True, on=grad_y)
    return grad_x


def pyramid_pool_forward(
    library: Library, x: torch.Tensor, levels: Sequence[int], kind: str, index: str
) -> tuple[torch.Tensor, torch.Tensor]:
    y = layout.pyramid(x, levels)
    taken = layout.pyramid(x, levels, dtype=_INDEX_DTYPE[index]) if index != "none" else None
    operand = library.operand(x, layout.memory_format(x))
    library.call(
        "adaptive_pool_forward",
        operand,
        y.unsqueeze(2),
        None if taken is None else taken.unsqueeze(2),
        split(levels, x.ndim - 2),
        True,
        kind == "max",
        on=x,
    )
    return y, layout.empty((0,), x, dtype=torch.uint8) if taken is None else taken


def pyramid_pool_backward(
    library: Library,
    grad_y: torch.Tensor,
    index: torch.Tensor,
    input_size: Sequence[int],
    levels: Sequence[int],
    kind: str,
    channels_last: bool,
) -> torch.Tensor:
    grad_x = layout.input_grad(grad_y, (grad_y.shape[0], *input_size), channels_last)
    maximum = kind == "max"
    library.call(
        "adaptive_pool_backward",
        library.contiguous(grad_y).unsqueeze(2),
        library.contiguous(index).unsqueeze(2) if maximum else None,
        grad_x,
        split(levels, len(input_size) - 1),
        True,
        maximum,
        on=grad_y,
    )
    return grad_x
