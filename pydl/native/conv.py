"""Convolution by the extension; definitions and arguments in ``csrc/conv.h``.

On a CPU the extension has the depthwise kernels; a dense product there is PyTorch's own, and comes
here only for the epilogue that goes over it in place.
"""

from collections.abc import Sequence

import torch

from pydl import layout
from pydl.aten import conv as aten
from pydl.native import Library


def allows_tf32(x: torch.Tensor) -> bool:
    """Whether products of float32 may be rounded to tf32 here: PyTorch's own switch for
    convolutions on a GPU."""
    return x.is_cuda and torch.backends.cudnn.allow_tf32


def _dense_on_cpu(library: Library, channels: int, groups: int) -> bool:
    """Whether the product is PyTorch's; ``channels`` is C / groups, the weight's."""
    return library.name == "cpu" and (channels > 1 or groups == 1)


def conv_forward(
    library: Library,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
) -> torch.Tensor:
    window = stride, padding, dilation, groups
    if _dense_on_cpu(library, weight.shape[1], groups):
        like = layout.conv_format(x, weight)
        y = layout.dense(aten.conv_forward(x, weight, bias, None, *window, "none", 0.0), like)
        residual = None if residual is None else layout.dense(residual, like)
        library.call("bias_act_forward", y, None, residual, y, activation, slope, on=x)
        return y
    y = layout.conv_output(x, weight, stride, padding, dilation)
    like = layout.memory_format(y)
    library.call(
        "conv_forward",
        library.operand(x, like),
        library.contiguous(weight),
        bias if bias is None else library.contiguous(bias),
        residual if residual is None else library.operand(residual, like),
        y,
        *window,
        activation,
        slope,
        allows_tf32(x),
        on=x,
    )
    return y


def conv_grad_input(
    library: Library,
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    if _dense_on_cpu(library, weight.shape[1], groups):
        window = stride, padding, dilation, groups
        grad_x = aten.conv_grad_input(grad_y, weight, input_size, *window)
        return layout.dense(grad_x, layout.conv_format(grad_y, weight))
    grad_x = layout.conv_input(grad_y, weight, input_size, groups)
    window = stride, padding, dilation, groups, allows_tf32(grad_y)
    operands = library.operand(grad_y, layout.memory_format(grad_x)), library.contiguous(weight)
    library.call("conv_grad_input", *operands, grad_x, *window, on=grad_y)
    return grad_x


def conv_grad_weight(
    library: Library,
    grad_y: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    if _dense_on_cpu(library, x.shape[1] // groups, groups):
        window = stride, padding, dilation, groups
        return aten.conv_grad_weight(grad_y, x, kernel_size, *window).contiguous()
    grad_weight = layout.conv_weight(grad_y, x, kernel_size, groups)
    window = stride, padding, dilation, groups, allows_tf32(x)
    like = layout.memory_format(x)
    operands = library.operand(grad_y, like), library.operand(x, like), grad_weight
    parts = None
    if library.name == "cuda":  # where long sums are split: how many floats their parts take
        count = library.functions.conv_grad_weight_parts(*operands, *window)
        sums = layout.sums_dtype(x)
        parts = layout.empty((count,), x, dtype=sums) if count else None
    library.call("conv_grad_weight", *operands, *window, parts, on=grad_y)
    return grad_weight


def conv_grad_bias(library: Library, grad_y: torch.Tensor) -> torch.Tensor:
    grad_bias = layout.empty((grad_y.shape[1],), grad_y)
    operand = library.operand(grad_y, layout.memory_format(grad_y))
    library.call("conv_grad_bias", operand, grad_bias, on=grad_y)
    return grad_bias
