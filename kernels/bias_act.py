"""Bias, residual and activation of a map, and their gradient (definition: csrc/bias_act.h).

    forward   y      = activation(x + bias[c] + residual)
    backward  grad_x = grad_y * activation'(saved)

Layouts: x, residual, grad_y and saved have any strides; y and grad_x are dense, and a program
covers ROWS x COLUMNS elements of what it writes in the order of its memory (elements.walk). It
reads each operand and writes the result once, which cannot be avoided; the arithmetic, at most one
exponential and one division an element, hides behind the memory.

Why this form: one pass where separate operators take up to three. Where a convolution comes first
its own kernel ends with ``activate`` and there is no pass at all.
"""

import torch
import triton
import triton.language as tl

from pydl.contract.bias_act import BiasActBackward, BiasActForward

from . import runtime
from .elements import divide, inline, narrow, number, place, walk, widen


@inline
def activate(z, ACTIVATION: tl.constexpr, slope):
    """The activation of ``z``, which is widened. A comparison with NaN is false, so that relu and
    leaky_relu pass it on."""
    if ACTIVATION == "relu":
        return tl.where(z <= 0, 0.0, z)
    elif ACTIVATION == "leaky_relu":
        return tl.where(z > 0, z, z * number(slope, z))
    elif ACTIVATION == "silu":
        return divide(z, 1 + tl.exp(-z))
    else:
        return z


@inline
def activation_gradient(grad_y, saved, ACTIVATION: tl.constexpr, slope):
    """``grad_y`` times the derivative of the activation at ``saved``, both widened."""
    if ACTIVATION == "relu":
        return tl.where(saved <= 0, 0.0, grad_y)
    elif ACTIVATION == "leaky_relu":
        return tl.where(saved > 0, grad_y, grad_y * number(slope, grad_y))
    elif ACTIVATION == "silu":
        gate = divide(tl.full(saved.shape, 1.0, saved.dtype), 1 + tl.exp(-saved))
        return grad_y * gate * (1 + saved * (1 - gate))
    else:
        return grad_y


@triton.jit
def bias_act_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    bias_ptr,  # (C,) or None
    residual_ptr,  # like x, any strides, or None
    y_ptr,  # (N, C, D, H, W), dense, written
    shape,
    x_stride,
    bias_stride,
    residual_stride,
    rows,
    columns,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = place(n, c, d, h, w, offset, x_stride, DENSE)
    z = widen(tl.load(x_ptr + at, mask=mask, other=0.0))  # [ROWS, COLUMNS]
    if bias_ptr is not None:
        z += widen(tl.load(bias_ptr + c * bias_stride, mask=c < shape[1], other=0.0))
    if residual_ptr is not None:
        at = place(n, c, d, h, w, offset, residual_stride, DENSE)
        z += widen(tl.load(residual_ptr + at, mask=mask, other=0.0))
    tl.store(y_ptr + offset, narrow(activate(z, ACTIVATION, slope), y_ptr), mask=mask)


def bias_act_forward(call: BiasActForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, bias, residual, activation, slope = call
    y = call.results()
    if y.numel() == 0:
        return y
    dense = runtime.dense(runtime.channels_last(y), x, residual)
    tiling = runtime.tile(y, flat=dense and bias is None)
    runtime.launch(
        bias_act_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        bias,
        residual,
        y,
        runtime.shape(x.shape),
        runtime.stride(x),
        0 if bias is None else bias.stride(0),
        runtime.stride(x if residual is None else residual),
        **tiling,
        DENSE=dense,
        ACTIVATION=activation,
        slope=float(slope),
        WIDE=runtime.wide(x, y, *([] if residual is None else [residual])),
    )
    return y


@triton.jit
def bias_act_backward_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    saved_ptr,  # like grad_y, any strides
    grad_x_ptr,  # like grad_y, dense, written
    shape,
    grad_y_stride,
    saved_stride,
    rows,
    columns,
    slope: tl.float64,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    DENSE: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    at = place(n, c, d, h, w, offset, grad_y_stride, DENSE)
    grad_y = widen(tl.load(grad_y_ptr + at, mask=mask, other=0.0))  # [ROWS, COLUMNS]
    at = place(n, c, d, h, w, offset, saved_stride, DENSE)
    saved = widen(tl.load(saved_ptr + at, mask=mask, other=0.0))
    grad_x = activation_gradient(grad_y, saved, ACTIVATION, slope)
    tl.store(grad_x_ptr + offset, narrow(grad_x, grad_x_ptr), mask=mask)


def bias_act_backward(call: BiasActBackward) -> torch.Tensor:
    """grad_x, in the layout of ``saved``."""
    grad_y, saved, activation, slope = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    dense = runtime.dense(runtime.channels_last(grad_x), grad_y, saved)
    tiling = runtime.tile(grad_x, flat=dense)
    runtime.launch(
        bias_act_backward_kernel,
        runtime.programs(tiling),
        grad_y.device,
        grad_y,
        saved,
        grad_x,
        runtime.shape(grad_y.shape),
        runtime.stride(grad_y),
        runtime.stride(saved),
        **tiling,
        DENSE=dense,
        ACTIVATION=activation,
        slope=float(slope),
        WIDE=runtime.wide(grad_y, saved, grad_x),
    )
    return grad_x
