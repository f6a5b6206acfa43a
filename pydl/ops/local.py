"""Locally connected layers over one to three axes: checks, autograd, registered operators.

Bilinear in x and weight like the convolution, so the three Functions are closed under
differentiation in the same way.
"""

import math
from collections.abc import Sequence

import torch

from pydl import backends
from pydl.aten.local import local_forward as by_pytorch
from pydl.contract.local import LocalForward, LocalGradInput, LocalGradWeight
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.forward_mode import of_product, total
from pydl.ops.registry import operator
from pydl.shapes import conv_size

_forward = operator(LocalForward)
_grad_input = operator(LocalGradInput)
_grad_weight = operator(LocalGradWeight)


class _Local(Function):
    @staticmethod
    def forward(x, weight, bias, window):
        return _forward(x, weight, bias, *window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, ctx.window = inputs
        save(ctx, output, x, weight)

    @staticmethod
    def backward(ctx, grad_y):
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = apply(_LocalGradInput, grad_y, weight, tuple(x.shape[2:]), ctx.window)
        if ctx.needs_input_grad[1]:
            grad_weight = apply(_LocalGradWeight, grad_y, x, ctx.window)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_y.sum(0)
        return grad_x, grad_weight, grad_bias, None

    @staticmethod
    def push(ctx, for_x, for_weight, for_bias, *_):
        def product(x, weight):
            return apply(_Local, x, weight, None, ctx.window)

        if for_bias is not None:
            for_bias = for_bias.expand(ctx.results[0].shape)
        terms = of_product(product, *ctx.saved_tensors, along=(for_x, for_weight))
        return total([*terms, for_bias])


class _LocalGradInput(Function):
    @staticmethod
    def forward(grad_y, weight, input_size, window):
        return _grad_input(grad_y, weight, input_size, *window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, ctx.input_size, ctx.window = inputs
        save(ctx, output, *operands)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_y, weight = ctx.saved_tensors
        for_grad_y = for_weight = None
        if ctx.needs_input_grad[0]:
            for_grad_y = apply(_Local, grad_grad_x, weight, None, ctx.window)
        if ctx.needs_input_grad[1]:
            for_weight = apply(_LocalGradWeight, grad_y, grad_grad_x, ctx.window)
        return for_grad_y, for_weight, None, None

    @staticmethod
    def push(ctx, for_grad_y, for_weight, *_):
        def product(grad_y, weight):
            return apply(_LocalGradInput, grad_y, weight, ctx.input_size, ctx.window)

        return total(of_product(product, *ctx.saved_tensors, along=(for_grad_y, for_weight)))


class _LocalGradWeight(Function):
    @staticmethod
    def forward(grad_y, x, window):
        return _grad_weight(grad_y, x, *window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, ctx.window = inputs
        save(ctx, output, *operands)

    @staticmethod
    def backward(ctx, grad_grad_weight):
        grad_y, x = ctx.saved_tensors
        for_grad_y = for_x = None
        if ctx.needs_input_grad[0]:
            for_grad_y = apply(_Local, x, grad_grad_weight, None, ctx.window)
        if ctx.needs_input_grad[1]:
            for_x = apply(_LocalGradInput, grad_y, grad_grad_weight, tuple(x.shape[2:]), ctx.window)
        return for_grad_y, for_x, None

    @staticmethod
    def push(ctx, for_grad_y, for_x, *_):
        def product(grad_y, x):
            return apply(_LocalGradWeight, grad_y, x, ctx.window)

        return total(of_product(product, *ctx.saved_tensors, along=(for_grad_y, for_x)))


def locally_connected(
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    backend: str | None,
) -> torch.Tensor:
    name = f"locally_connected{axes}d"
    checks.tensor(name, "input", x)
    checks.tensor(name, "weight", weight)
    arguments = weight.shape, stride, padding, dilation
    backend = backends.choose("local", backend, x, arguments=arguments)
    checks.rank(name, x, axes)
    if weight.ndim != 2 + 2 * axes:
        raise RuntimeError(
            f"{name}: weight should have {2 + 2 * axes} dimensions (filters, channels, kernel, "
            f"output), got weight of size {list(weight.shape)}"
        )
    unbatched = x.ndim == axes + 1
    if bias is not None:
        checks.tensor(name, "bias", bias)
        bias = as_autocast("local", bias)
    x, weight = (
        as_autocast("local", x.unsqueeze(0) if unbatched else x),
        as_autocast("local", weight),
    )
    for other, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            checks.same_device_and_dtype(name, x, other, tensor)
    stride = checks.axes(name, "stride", stride, axes, least=1)
    padding = checks.axes(name, "padding", padding, axes, least=0)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    features, channels, *sizes = weight.shape
    kernel_size, output_size = sizes[:axes], sizes[axes:]
    if x.shape[1] != channels or 0 in weight.shape:
        raise RuntimeError(
            f"{name}: weight of size {list(weight.shape)} serves input with {channels} channels, "
            f"got input of size {list(x.shape)}"
        )
    expected = conv_size(x.shape[2:], kernel_size, stride, padding, dilation)
    if expected != output_size:
        raise RuntimeError(
            f"{name}: weight has filters for {output_size} positions, but the input's size "
            f"{list(x.shape[2:])} gives {expected}"
        )
    if bias is not None and list(bias.shape) != [features, *output_size]:
        raise RuntimeError(
            f"{name}: expected bias of size {[features, *output_size]}, got {list(bias.shape)}"
        )
    x, flat = x.resolve_neg(), weight.resolve_neg()
    flat = flat.reshape(features, channels * math.prod(kernel_size), *output_size)
    window = (kernel_size, stride, padding, dilation, backend)
    if backend == "aten":
        y = by_pytorch(LocalForward(x, flat, bias, *window[:-1])).contiguous()
    elif needs_grad(x, flat, bias):
        y = _Local.apply(x, flat, bias, window)
    else:
        y = _forward(x, flat, bias, *window)
    return y.squeeze(0) if unbatched else y
