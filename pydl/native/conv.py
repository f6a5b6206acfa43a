"""Convolution by the extension; definitions and arguments in ``csrc/conv.h``.

On a CPU the extension has the depthwise kernels; a dense product there is PyTorch's own, and comes
here only for the epilogue that goes over it in place.
"""

import torch

from pydl import layout, plan
from pydl.aten import conv as aten
from pydl.contract.conv import (
    ConvForward,
    ConvGradBias,
    ConvGradInput,
    ConvGradWeight,
    memory_format,
)
from pydl.native import Library


def allows_tf32(x: torch.Tensor) -> bool:
    """Whether products of float32 may be rounded to tf32 here: PyTorch's own switch for
    convolutions on a GPU."""
    return x.is_cuda and plan.setting(_allow_tf32)


def _allow_tf32() -> bool:
    return torch.backends.cudnn.allow_tf32


def _dense_on_cpu(library: Library, channels: int, groups: int) -> bool:
    """Whether the product is PyTorch's; ``channels`` is C / groups, the weight's."""
    return library.name == "cpu" and (channels > 1 or groups == 1)


def conv_forward(library: Library, call: ConvForward) -> torch.Tensor:
    x, weight, bias, residual, *window, activation, slope = call
    if _dense_on_cpu(library, weight.shape[1], call.groups):
        like = memory_format(x, weight)
        product = call._replace(residual=None, activation="none")
        y = layout.dense(aten.conv_forward(product), like)
        residual = None if residual is None else layout.dense(residual, like)
        library.call("bias_act_forward", y, None, residual, y, activation, slope, on=x)
        return y
    y = call.results()
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


def conv_grad_input(library: Library, call: ConvGradInput) -> torch.Tensor:
    grad_y, weight, _, *window = call
    if _dense_on_cpu(library, weight.shape[1], call.groups):
        return layout.dense(aten.conv_grad_input(call), memory_format(grad_y, weight))
    grad_x = call.results()
    operands = library.operand(grad_y, layout.memory_format(grad_x)), library.contiguous(weight)
    library.call("conv_grad_input", *operands, grad_x, *window, allows_tf32(grad_y), on=grad_y)
    return grad_x


def conv_grad_weight(library: Library, call: ConvGradWeight) -> torch.Tensor:
    grad_y, x, _, *window = call
    if _dense_on_cpu(library, x.shape[1] // call.groups, call.groups):
        return aten.conv_grad_weight(call).contiguous()
    grad_weight, like = call.results(), layout.memory_format(x)
    how = *window, allows_tf32(x)
    operands = library.operand(grad_y, like), library.operand(x, like), grad_weight
    parts = None
    if library.name == "cuda":  # where long sums are split: how many floats their parts take
        count = plan.geometry(library.functions.conv_grad_weight_parts, *operands, *how)
        sums = layout.sums_dtype(x)
        parts = layout.empty((count,), x, dtype=sums) if count else None
    library.call("conv_grad_weight", *operands, *how, parts, on=grad_y)
    return grad_weight


def conv_grad_bias(library: Library, call: ConvGradBias) -> torch.Tensor:
    (grad_y,) = call
    grad_bias = call.results()
    operand = library.operand(grad_y, layout.memory_format(grad_y))
    parts = None
    if library.name == "cuda":  # a partial sum for each run of pixels
        runs = plan.geometry(library.functions.conv_grad_bias_runs, operand)
        shape, sums = (1, runs, grad_bias.shape[0]), layout.sums_dtype(operand)
        parts = (
            layout.empty(shape, operand, dtype=sums, layout=torch.contiguous_format)
            if runs
            else None
        )
    library.call("conv_grad_bias", operand, grad_bias, parts, on=grad_y)
    return grad_bias
