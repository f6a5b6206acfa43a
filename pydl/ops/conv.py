"""Convolution over one to three axes: checks, autograd, registered operators.

The forward is linear in x and in weight, and so is each gradient in its two operands; each one's
derivatives are the other two, which makes the three Functions below closed under differentiation to
any order. The data gradient is also the transposed convolution.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pydl import backends, dispatch, layout, plan
from pydl.aten.bias_act import finish
from pydl.backends import transformed
from pydl.contract.conv import (
    ConvForward,
    ConvGradBias,
    ConvGradInput,
    ConvGradWeight,
    memory_format,
)
from pydl.ops import checks, conv_checks
from pydl.ops.autocast import as_autocast
from pydl.ops.bias_act import ACTIVATIONS, NO_EPILOGUE, BiasActGrad, bias_act
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.forward_mode import of_product, total
from pydl.ops.registry import operator
from pydl.shapes import conv_size

Ints = int | Sequence[int]

_forward = operator(ConvForward)
_grad_input = operator(ConvGradInput)
_grad_weight = operator(ConvGradWeight)
_grad_bias = operator(ConvGradBias)


class Servers(NamedTuple):
    """The backends of the three passes of one convolution; ``auto`` may mix them."""

    forward: str  # and the gradients of bias and epilogue
    grad_input: str
    grad_weight: str


class _Conv(Function):
    """``window`` is stride, padding, dilation, groups and who serves, ``epilogue`` the activation
    and its slope. An activation whose derivative y does not tell (silu, a negative slope) is an
    operator of its own."""

    @staticmethod
    def forward(x, weight, bias, residual, window, epilogue):
        *geometry, servers = window
        return _forward(x, weight, bias, residual, *geometry, *epilogue, servers.forward)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _, _, ctx.window, ctx.epilogue = inputs
        save(ctx, output, x, weight, *(() if ctx.epilogue == NO_EPILOGUE else (output,)))

    @staticmethod
    def backward(ctx, grad_y):
        x, weight, *y = ctx.saved_tensors
        window, needs = ctx.window, ctx.needs_input_grad
        grad_y = _as_result(grad_y, x, weight)
        if y:
            grad_y = apply(BiasActGrad, grad_y, y[0], *ctx.epilogue, window[-1].forward)
        grad_x = grad_weight = grad_bias = None
        if needs[0]:
            grad_x = apply(_ConvGradInput, grad_y, weight, None, tuple(x.shape[2:]), window)
        if needs[1]:
            grad_weight = apply(_ConvGradWeight, grad_y, x, tuple(weight.shape[2:]), window)
            grad_weight = _as_result(grad_weight, x, weight)
        if needs[2]:
            grad_bias = apply(_ConvGradBias, grad_y, window[-1].forward)
        return grad_x, grad_weight, grad_bias, grad_y if needs[3] else None, None, None

    @staticmethod
    def push(ctx, for_x, for_weight, for_bias, for_residual, *_):
        x, weight, *y = ctx.saved_tensors
        if for_bias is not None:
            for_bias = _along_channels(for_bias, x.ndim).expand(ctx.results[0].shape)

        def product(x, weight):
            return apply(_Conv, x, weight, None, None, ctx.window, NO_EPILOGUE)

        terms = of_product(product, x, weight, along=(for_x, for_weight))
        tangent = total([*terms, for_bias, for_residual])
        if y:
            tangent = apply(BiasActGrad, tangent, y[0], *ctx.epilogue, ctx.window[-1].forward)
        return tangent


def _as_result(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A gradient in the layout of the result that was made of these: the gradients lie as that did,
    as PyTorch's do, whatever the one that comes in looks like."""
    return layout.dense(grad, memory_format(x, weight))


class _ConvGradInput(Function):
    """A transposed convolution's has a bias."""

    @staticmethod
    def forward(grad_y, weight, bias, input_size, window):
        return _transposed(grad_y, weight, bias, input_size, window)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, _, ctx.input_size, ctx.window = inputs
        save(ctx, output, *operands)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_y, weight = ctx.saved_tensors
        grad_grad_x = _as_result(grad_grad_x, grad_y, weight)
        for_grad_y = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:
            for_grad_y = apply(_Conv, grad_grad_x, weight, None, None, ctx.window, NO_EPILOGUE)
            # A transposed convolution's output_padding may make the map large enough for more.
            for axis, n in enumerate(grad_y.shape[2:], start=2):
                for_grad_y = for_grad_y.narrow(axis, 0, n)
        if ctx.needs_input_grad[1]:
            kernel_size = tuple(weight.shape[2:])
            for_weight = apply(_ConvGradWeight, grad_y, grad_grad_x, kernel_size, ctx.window)
            for_weight = _as_result(for_weight, grad_y, weight)
        if ctx.needs_input_grad[2]:
            for_bias = apply(_ConvGradBias, grad_grad_x, ctx.window[-1].forward)
        return for_grad_y, for_weight, for_bias, None, None

    @staticmethod
    def push(ctx, for_grad_y, for_weight, for_bias, *_):
        def product(grad_y, weight):
            return apply(_ConvGradInput, grad_y, weight, None, ctx.input_size, ctx.window)

        if for_bias is not None:
            shape = ctx.results[0].shape
            for_bias = _along_channels(for_bias, len(shape)).expand(shape)
        terms = of_product(product, *ctx.saved_tensors, along=(for_grad_y, for_weight))
        return total([*terms, for_bias])


class _ConvGradWeight(Function):
    @staticmethod
    def forward(grad_y, x, kernel_size, window):
        *geometry, servers = window
        return _grad_weight(grad_y, x, kernel_size, *geometry, servers.grad_weight)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *operands, ctx.kernel_size, ctx.window = inputs
        save(ctx, output, *operands)

    @staticmethod
    def backward(ctx, grad_grad_weight):
        grad_y, x = ctx.saved_tensors
        for_grad_y = for_x = None
        if ctx.needs_input_grad[0]:
            for_grad_y = apply(_Conv, x, grad_grad_weight, None, None, ctx.window, NO_EPILOGUE)
            for axis, n in enumerate(grad_y.shape[2:], start=2):
                for_grad_y = for_grad_y.narrow(axis, 0, n)
        if ctx.needs_input_grad[1]:
            input_size = tuple(x.shape[2:])
            for_x = apply(_ConvGradInput, grad_y, grad_grad_weight, None, input_size, ctx.window)
        return for_grad_y, for_x, None, None

    @staticmethod
    def push(ctx, for_grad_y, for_x, *_):
        def product(grad_y, x):
            return apply(_ConvGradWeight, grad_y, x, ctx.kernel_size, ctx.window)

        return total(of_product(product, *ctx.saved_tensors, along=(for_grad_y, for_x)))


def _transposed(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    size: Sequence[int],
    window: tuple,
) -> torch.Tensor:
    *geometry, servers = window
    y = _grad_input(x, weight, size, *geometry, servers.grad_input)
    if bias is None:
        return y
    add = torch.add if transformed() else torch.Tensor.add_  # vmap may map the bias alone
    return plan.step(add, y, _along_channels(bias, y.ndim))


def _along_channels(vector: torch.Tensor, axes: int) -> torch.Tensor:
    return vector.reshape(-1, *[1] * (axes - 2))


class _ConvGradBias(Function):
    @staticmethod
    def forward(grad_y, backend):
        return _grad_bias(grad_y, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, ctx.backend = inputs
        ctx.shape = grad_y.shape

    @staticmethod
    def backward(ctx, grad_grad_bias):
        return _along_channels(grad_grad_bias, len(ctx.shape)).expand(ctx.shape), None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_ConvGradBias, tangent, ctx.backend)


_PYTORCH = (
    None,
    torch.nn.functional.conv1d,
    torch.nn.functional.conv2d,
    torch.nn.functional.conv3d,
)
_PYTORCH_TRANSPOSED = (
    None,
    torch.nn.functional.conv_transpose1d,
    torch.nn.functional.conv_transpose2d,
    torch.nn.functional.conv_transpose3d,
)
_ALL_OF_PYTORCH = Servers("aten", "aten", "aten")


def _is_depthwise(weight: torch.Tensor, groups: int) -> bool:
    """Whether a convolution is bound by memory, not by arithmetic."""
    return groups != 1 and weight.ndim > 1 and weight.shape[1] == 1


def _servers(
    backend: str | None,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Ints,
    groups: int,
    first: str,
    *rest: object,
) -> Servers:
    """Who serves; ``rest`` is what else the call was given. Depthwise convolution is chosen apart,
    and each of its passes apart; where PyTorch serves ``first``, the pass that makes the result,
    the whole call is PyTorch's."""
    arguments = weight.shape, stride, groups, *rest
    if not _is_depthwise(weight, groups):
        one = backends.choose("conv", backend, x, arguments=arguments)
        return _ALL_OF_PYTORCH if one == "aten" else Servers(one, one, one)
    # What is too small for any row of the table is through before the table is asked.
    by_table = x.is_cpu and not torch.compiler.is_compiling() and not dispatch.exactly
    if by_table and backends.asked(backend) == "auto":
        least = dispatch.LEAST_PLANE.get("depthwise", math.inf)
        if x.is_nested or math.prod(x.shape[2:]) < least:
            return _ALL_OF_PYTORCH
    unit_stride = stride == 1 or (isinstance(stride, Sequence) and all(s == 1 for s in stride))
    made = backends.choose("depthwise", backend, x, first, unit_stride, arguments)
    if made == "aten":
        return _ALL_OF_PYTORCH
    return Servers(
        *(
            made
            if function == first
            else backends.choose("depthwise", backend, x, function, unit_stride, arguments)
            for function in ("conv_forward", "conv_grad_input", "conv_grad_weight")
        )
    )


def conv(
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    backend: str | None,
) -> torch.Tensor:
    name = f"conv{axes}d"
    checks.tensor(name, "input", x)
    checks.tensor(name, "weight", weight)
    servers = _servers(backend, x, weight, stride, groups, "conv_forward", padding, dilation)
    if servers is _ALL_OF_PYTORCH:
        function = _PYTORCH[axes]
        return plan.step(function, x, weight, bias, stride, padding, dilation, groups)
    unbatched = x.ndim == axes + 1
    x, weight, bias = _operands(name, axes, x, weight, bias=bias)
    x, window = _geometry(name, x, weight, bias, stride, padding, dilation, groups, servers)
    y = _run(x, weight, bias, None, window, NO_EPILOGUE)
    return y.squeeze(0) if unbatched else y


def conv_bias_act(
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    activation: str,
    negative_slope: float,
    residual: torch.Tensor | None,
    backend: str | None,
) -> torch.Tensor:
    name = f"conv{axes}d_bias_act"
    checks.tensor(name, "input", x)
    checks.tensor(name, "weight", weight)
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{name}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
        )
    epilogue = (activation, float(negative_slope if activation == "leaky_relu" else 0))
    arguments = weight.shape, stride, padding, dilation, groups, activation, residual is not None
    kind = "depthwise_bias_act" if _is_depthwise(weight, groups) else "conv_bias_act"
    backend = backends.choose(kind, backend, x, arguments=arguments)
    if backend == "aten":
        y = _PYTORCH[axes](x, weight, bias, stride, padding, dilation, groups)
        if residual is not None:
            checks.tensor(name, "residual", residual)
            residual = as_autocast("conv", residual)
            _check_residual(name, residual, y.shape)
            checks.same_device_and_dtype(name, y, "residual", residual)
        return finish(y, residual, *epilogue)
    servers = Servers(backend, backend, backend)
    unbatched = x.ndim == axes + 1
    if residual is not None and unbatched:
        checks.tensor(name, "residual", residual)
        residual = residual.unsqueeze(0)
    x, weight, bias, residual = _operands(name, axes, x, weight, bias=bias, residual=residual)
    x, window = _geometry(name, x, weight, bias, stride, padding, dilation, groups, servers)
    spatial = conv_size(x.shape[2:], weight.shape[2:], *window[:3])
    if residual is not None:
        _check_residual(name, residual, (x.shape[0], weight.shape[0], *spatial))
    if needs_grad(x, weight, bias, residual) and (activation == "silu" or epilogue[1] < 0):
        # Its derivative is taken at what goes into it, so that is kept.
        y = bias_act(_run(x, weight, bias, residual, window, NO_EPILOGUE), *epilogue, backend)
    else:
        y = _run(x, weight, bias, residual, window, epilogue)
    return y.squeeze(0) if unbatched else y


def _check_residual(name: str, residual: torch.Tensor, shape: Sequence[int]) -> None:
    if tuple(residual.shape) != tuple(shape):
        raise RuntimeError(
            f"{name}: expected residual to have the output's shape {list(shape)}, got "
            f"{list(residual.shape)}"
        )


def conv_transpose(
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: Ints,
    output_padding: Ints,
    groups: int,
    dilation: Ints,
    backend: str | None,
) -> torch.Tensor:
    name = f"conv_transpose{axes}d"
    checks.tensor(name, "input", x)
    checks.tensor(name, "weight", weight)
    servers = _servers(
        backend, x, weight, stride, groups, "conv_grad_input", padding, output_padding, dilation
    )
    if servers is _ALL_OF_PYTORCH:
        rest = stride, padding, output_padding, groups, dilation
        return plan.step(_PYTORCH_TRANSPOSED[axes], x, weight, bias, *rest)
    unbatched = x.ndim == axes + 1
    x, weight, bias = _operands(name, axes, x, weight, bias=bias)
    groups = conv_checks.groups_of(name, groups)
    padding = conv_checks.per_axis(name, "padding", padding, axes, least=0)
    output_padding = conv_checks.per_axis(name, "output_padding", output_padding, axes, least=0)
    stride = conv_checks.per_axis(name, "stride", stride, axes, least=1)
    dilation = conv_checks.per_axis(name, "dilation", dilation, axes, least=1)
    conv_checks.shapes(name, x, weight, bias, groups, transposed=True)
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise RuntimeError(
            f"output padding must be smaller than either stride or dilation, but got "
            f"output_padding {output_padding}, stride {stride} and dilation {dilation}"
        )
    output_size = [
        (n - 1) * s - 2 * p + d * (k - 1) + o + 1
        for n, s, p, d, k, o in zip(
            x.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding, strict=True
        )
    ]
    if min(output_size) < 1:
        raise RuntimeError(
            f"Given input size per channel: {list(x.shape[2:])}. Calculated output size per "
            f"channel: {output_size}. Output size is too small"
        )
    conv_checks.has_positions(x)
    # The data gradient of the convolution that leads from the result to x.
    made = _ConvGradInput.apply if needs_grad(x, weight, bias) else _transposed
    y = made(x, weight, bias, tuple(output_size), (stride, padding, dilation, groups, servers))
    return y.squeeze(0) if unbatched else y


def _operands(
    name: str,
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    **others: torch.Tensor | None,
) -> tuple[torch.Tensor | None, ...]:
    """x as (N, C, spatial...), weight and others (x-like ones batched too), checked, in autocast's
    precision where that is on."""
    checks.rank(name, x, axes)
    conv_checks.weight_rank(name, weight, axes)
    for other, tensor in others.items():
        if tensor is not None:
            checks.tensor(name, other, tensor)
    given = (x if x.ndim == axes + 2 else x.unsqueeze(0), weight, *others.values())
    cast = [None if tensor is None else as_autocast("conv", tensor) for tensor in given]
    for other, tensor in zip(("weight", *others), cast[1:], strict=True):
        if tensor is not None and (tensor.dtype, tensor.device) != (cast[0].dtype, cast[0].device):
            raise RuntimeError(
                f"Input type ({cast[0].type()}) and {other} type ({tensor.type()}) should be the "
                "same"
            )
    return tuple(None if tensor is None else tensor.resolve_neg() for tensor in cast)


def _geometry(
    name: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Ints,
    padding: str | Ints,
    dilation: Ints,
    groups: int,
    servers: Servers,
) -> tuple[torch.Tensor, tuple[list[int], list[int], list[int], int, Servers]]:
    """x, padded where padding='same' is lopsided, and the window in numbers; shapes checked."""
    axes = x.ndim - 2
    groups = conv_checks.groups_of(name, groups)
    stride = conv_checks.per_axis(name, "stride", stride, axes, least=1)
    dilation = conv_checks.per_axis(name, "dilation", dilation, axes, least=1)
    padding, right = conv_checks.resolve_padding(name, weight.shape[2:], stride, padding, dilation)
    if any(right):
        # pad takes its pairs from the last axis to the first.
        sides = [side for r in reversed(right) for side in (0, r)]
        x = plan.step(torch.nn.functional.pad, x, sides)
    conv_checks.shapes(name, x, weight, bias, groups)
    conv_checks.kernel_fits(x, weight, padding, dilation)
    conv_checks.has_positions(x)
    return x, (stride, padding, dilation, groups, servers)


def _run(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    window: tuple,
    epilogue: tuple[str, float],
) -> torch.Tensor:
    if needs_grad(x, weight, bias, residual):
        return _Conv.apply(x, weight, bias, residual, window, epilogue)
    *geometry, servers = window
    return _forward(x, weight, bias, residual, *geometry, *epilogue, servers.forward)
