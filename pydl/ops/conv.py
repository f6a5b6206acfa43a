"""Convolution over one to three axes: checks, autograd, registered operators.

The forward is linear in x and in weight, and so is each gradient in its two operands; each one's
derivatives are the other two, which makes the three Functions below closed under differentiation to
any order. The data gradient is also the transposed convolution.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.bias_act import ACTIVATIONS, NO_EPILOGUE, BiasActGrad, bias_act
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import needs_grad
from pydl.ops.registry import operator

_GEOMETRY = "int[] stride, int[] padding, int[] dilation, int groups"
_WINDOW = f"{_GEOMETRY}, str backend"
_forward = operator(
    f"conv_forward(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, {_GEOMETRY}, "
    "str activation, float slope, str backend) -> Tensor",
    lambda x, weight, bias, residual, stride, padding, dilation, *_: layout.conv_output(
        x, weight, stride, padding, dilation
    ),
)
_grad_input = operator(
    f"conv_grad_input(Tensor grad_y, Tensor weight, SymInt[] input_size, {_WINDOW}) -> Tensor",
    lambda grad_y, weight, input_size, stride, padding, dilation, groups, _: layout.conv_input(
        grad_y, weight, input_size, groups
    ),
)
_grad_weight = operator(
    f"conv_grad_weight(Tensor grad_y, Tensor x, SymInt[] kernel_size, {_WINDOW}) -> Tensor",
    lambda grad_y, x, kernel_size, stride, padding, dilation, groups, _: layout.conv_weight(
        grad_y, x, kernel_size, groups
    ),
)
_grad_bias = operator(
    "conv_grad_bias(Tensor grad_y, str backend) -> Tensor",
    lambda grad_y, _: layout.empty((grad_y.shape[1],), grad_y),
)


class Servers(NamedTuple):
    """The backends of the three passes of one convolution; ``auto`` may mix them."""

    forward: str  # and the gradients of bias and epilogue
    grad_input: str
    grad_weight: str


class _Conv(torch.autograd.Function):
    """``window`` is stride, padding, dilation, groups and who serves, ``epilogue`` the activation
    and its slope. An activation whose derivative y does not tell (silu, a negative slope) is an
    operator of its own."""

    @staticmethod
    def forward(ctx, x, weight, bias, residual, window, epilogue):
        *geometry, servers = window
        y = _forward(x, weight, bias, residual, *geometry, *epilogue, servers.forward)
        ctx.save_for_backward(x, weight, *(() if epilogue == NO_EPILOGUE else (y,)))
        ctx.window, ctx.epilogue = window, epilogue
        return y

    @staticmethod
    def backward(ctx, grad_y):
        x, weight, *y = ctx.saved_tensors
        window, needs = ctx.window, ctx.needs_input_grad
        if y:
            grad_y = apply(BiasActGrad, grad_y, y[0], *ctx.epilogue, window[-1].forward)
        grad_x = grad_weight = grad_bias = None
        if needs[0]:
            grad_x = apply(_ConvGradInput, grad_y, weight, tuple(x.shape[2:]), window)
        if needs[1]:
            grad_weight = apply(_ConvGradWeight, grad_y, x, tuple(weight.shape[2:]), window)
        if needs[2]:
            grad_bias = apply(_ConvGradBias, grad_y, window[-1].forward)
        return grad_x, grad_weight, grad_bias, grad_y if needs[3] else None, None, None


class _ConvGradInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_y, weight, input_size, window):
        ctx.save_for_backward(grad_y, weight)
        ctx.window = window
        *geometry, servers = window
        return _grad_input(grad_y, weight, input_size, *geometry, servers.grad_input)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_y, weight = ctx.saved_tensors
        for_grad_y = for_weight = None
        if ctx.needs_input_grad[0]:
            for_grad_y = apply(_Conv, grad_grad_x, weight, None, None, ctx.window, NO_EPILOGUE)
            # A transposed convolution's output_padding may make the map large enough for more.
            for axis, n in enumerate(grad_y.shape[2:], start=2):
                for_grad_y = for_grad_y.narrow(axis, 0, n)
        if ctx.needs_input_grad[1]:
            kernel_size = tuple(weight.shape[2:])
            for_weight = apply(_ConvGradWeight, grad_y, grad_grad_x, kernel_size, ctx.window)
        return for_grad_y, for_weight, None, None


class _ConvGradWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_y, x, kernel_size, window):
        ctx.save_for_backward(grad_y, x)
        ctx.window = window
        *geometry, servers = window
        return _grad_weight(grad_y, x, kernel_size, *geometry, servers.grad_weight)

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
            for_x = apply(_ConvGradInput, grad_y, grad_grad_weight, input_size, ctx.window)
        return for_grad_y, for_x, None, None


class _ConvGradBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_y, backend):
        ctx.shape = grad_y.shape
        return _grad_bias(grad_y, backend)

    @staticmethod
    def backward(ctx, grad_grad_bias):
        shape = ctx.shape
        return grad_grad_bias.reshape(-1, *[1] * (len(shape) - 2)).expand(shape), None


def _resolve_padding(
    name: str,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: str | int | Sequence[int],
    dilation: Sequence[int],
) -> tuple[torch.Tensor, list[int]]:
    """``padding`` in numbers. 'same' pads d(k - 1) in all; where that is odd, one on the right is
    padded first."""
    axes = len(kernel_size)
    if not isinstance(padding, str):
        return x, checks.axes(name, "padding", padding, axes, least=0)
    if padding == "valid":
        return x, [0] * axes
    if padding != "same":
        raise RuntimeError(
            f"Invalid padding string: '{padding}'; {name} takes 'same', 'valid' or integers"
        )
    if any(s != 1 for s in stride):
        raise RuntimeError(
            f"padding='same' is not supported for strided convolutions, got stride {list(stride)}"
        )
    total = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    if any(t % 2 for t in total):
        # pad takes its pairs from the last axis to the first.
        x = torch.nn.functional.pad(x, [side for t in reversed(total) for side in (0, t % 2)])
    return x, [t // 2 for t in total]


def _check_shapes(
    name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, groups: int
) -> None:
    """The batched input, weight and bias against each other, in PyTorch's words."""
    shape, channels = list(weight.shape), x.shape[1]
    _check_groups(name, groups)
    if 0 in shape[1:]:
        raise RuntimeError(
            f"{name}: weight should have at least one channel and one tap, got weight of size "
            f"{shape}"
        )
    if channels != weight.shape[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {shape}, expected input{list(x.shape)} to have "
            f"{weight.shape[1] * groups} channels, but got {channels} channels instead"
        )
    if shape[0] == 0 or shape[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0 and "
            f"divisible by {groups}, "
            f"but got weight of size {shape} instead"
        )
    _check_bias(weight, bias, shape[0])


def _check_groups(name: str, groups: int) -> None:
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{name}(): argument 'groups' must be int, not {type(groups).__name__}")
    if groups < 1:
        raise RuntimeError(f"non-positive groups is not supported, got groups={groups}")


def _check_bias(weight: torch.Tensor, bias: torch.Tensor | None, features: int) -> None:
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != features):
        raise RuntimeError(
            f"Given weight of size {list(weight.shape)}, expected bias to be 1-dimensional with "
            f"{features} elements, but got bias of size {list(bias.shape)} instead"
        )


def _autocast(x: torch.Tensor, *others: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """Operands in autocast's low precision where it is on: PyTorch sends convolution there."""
    device = x.device.type
    operands = (x, *others)
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return operands
    low = torch.get_autocast_dtype(device)
    return tuple(None if operand is None else operand.to(low) for operand in operands)


def _servers(
    backend: str | None,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: int | Sequence[int],
    groups: int,
) -> Servers:
    """Who serves. Depthwise convolution is chosen apart, bound as it is by memory and not by
    arithmetic, and each of its passes apart."""
    if not (groups > 1 and weight.shape[1] == 1):
        return Servers(*[backends.choose("conv", backend, x)] * 3)
    unit_stride = stride == 1 or (isinstance(stride, Sequence) and all(s == 1 for s in stride))
    return Servers(
        *(
            backends.choose("depthwise", backend, x, function, unit_stride)
            for function in ("conv_forward", "conv_grad_input", "conv_grad_weight")
        )
    )


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
    if weight.ndim != axes + 2:
        raise RuntimeError(
            f"{name}: weight should have {axes + 2} dimensions, got weight of size "
            f"{list(weight.shape)}"
        )
    operands = _autocast(x if x.ndim == axes + 2 else x.unsqueeze(0), weight, *others.values())
    for other, tensor in zip(("weight", *others), operands[1:], strict=True):
        if tensor is not None:
            checks.tensor(name, other, tensor)
            checks.same_device_and_dtype(name, operands[0], other, tensor)
    return tuple(None if tensor is None else tensor.resolve_neg() for tensor in operands)


def conv(
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    backend: str | None,
) -> torch.Tensor:
    name = f"conv{axes}d"
    checks.tensor(name, "input", x)
    checks.tensor(name, "weight", weight)
    servers = _servers(backend, x, weight, stride, groups)
    if servers.forward == "aten":
        return getattr(torch.nn.functional, name)(
            x, weight, bias, stride, padding, dilation, groups
        )
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
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
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
    backend = backends.choose("conv_bias_act", backend, x)
    servers = Servers(backend, backend, backend)
    unbatched = x.ndim == axes + 1
    if residual is not None and unbatched:
        checks.tensor(name, "residual", residual)
        residual = residual.unsqueeze(0)
    x, weight, bias, residual = _operands(name, axes, x, weight, bias=bias, residual=residual)
    x, window = _geometry(name, x, weight, bias, stride, padding, dilation, groups, servers)
    spatial = layout.conv_size(x.shape[2:], weight.shape[2:], *window[:3])
    shape = (x.shape[0], weight.shape[0], *spatial)
    if residual is not None and residual.shape != shape:
        raise RuntimeError(
            f"{name}: expected residual to have the output's shape {list(shape)}, got "
            f"{list(residual.shape)}"
        )
    epilogue = (activation, float(negative_slope if activation == "leaky_relu" else 0))
    if needs_grad(x, weight, bias, residual) and (activation == "silu" or epilogue[1] < 0):
        # Its derivative is taken at what goes into it, so that is kept.
        y = bias_act(_run(x, weight, bias, residual, window, NO_EPILOGUE), *epilogue, backend)
    else:
        y = _run(x, weight, bias, residual, window, epilogue)
    return y.squeeze(0) if unbatched else y


def conv_transpose(
    axes: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    output_padding: int | Sequence[int],
    groups: int,
    dilation: int | Sequence[int],
    backend: str | None,
) -> torch.Tensor:
    name = f"conv_transpose{axes}d"
    checks.tensor(name, "input", x)
    checks.tensor(name, "weight", weight)
    servers = _servers(backend, x, weight, stride, groups)
    if servers.grad_input == "aten":
        return getattr(torch.nn.functional, name)(
            x, weight, bias, stride, padding, output_padding, groups, dilation
        )
    unbatched = x.ndim == axes + 1
    x, weight, bias = _operands(name, axes, x, weight, bias=bias)
    _check_groups(name, groups)
    shape = list(weight.shape)
    if 0 in shape[1:]:
        raise RuntimeError(
            f"{name}: weight should have at least one channel and one tap, got weight of size "
            f"{shape}"
        )
    if x.shape[1] != shape[0] or shape[0] % groups:
        raise RuntimeError(
            f"Given transposed=1, groups={groups}, weight of size {shape}, expected "
            f"input{list(x.shape)} to have {shape[0]} channels, divisible by groups, but got "
            f"{x.shape[1]} channels instead"
        )
    _check_bias(weight, bias, shape[1] * groups)
    stride = checks.axes(name, "stride", stride, axes, least=1)
    padding = checks.axes(name, "padding", padding, axes, least=0)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    output_padding = checks.axes(name, "output_padding", output_padding, axes, least=0)
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise RuntimeError(
            f"output padding must be smaller than either stride or dilation, but got "
            f"output_padding {output_padding}, stride {stride} and dilation {dilation}"
        )
    output_size = [
        (n - 1) * s - 2 * p + d * (k - 1) + o + 1
        for n, s, p, d, k, o in zip(
            x.shape[2:], stride, padding, dilation, shape[2:], output_padding, strict=True
        )
    ]
    if min(output_size) < 1:
        raise RuntimeError(
            f"Given input size per channel: {list(x.shape[2:])}. Calculated output size per "
            f"channel: {output_size}. Output size is too small"
        )
    # The data gradient of the convolution that leads from the result to x.
    geometry = stride, padding, dilation, groups
    if needs_grad(x, weight):
        y = _ConvGradInput.apply(x, weight, tuple(output_size), (*geometry, servers))
    else:
        y = _grad_input(x, weight, output_size, *geometry, servers.grad_input)
    if bias is not None:
        y = y + bias.reshape(-1, *[1] * axes)
    return y.squeeze(0) if unbatched else y


def _geometry(
    name: str,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
    servers: Servers,
) -> tuple[torch.Tensor, tuple[list[int], list[int], list[int], int, Servers]]:
    """x, padded where padding='same' is lopsided, and the window in numbers; shapes checked."""
    axes = x.ndim - 2
    _check_shapes(name, x, weight, bias, groups)
    stride = checks.axes(name, "stride", stride, axes, least=1)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    x, padding = _resolve_padding(name, x, weight.shape[2:], stride, padding, dilation)
    _check_kernel_fits(x, weight, padding, dilation)
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


def _check_kernel_fits(
    x: torch.Tensor, weight: torch.Tensor, padding: list[int], dilation: list[int]
) -> None:
    padded = [n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)]
    reach = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if any(r > n for n, r in zip(padded, reach, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: {padded}. Kernel size: {reach}. "
            "Kernel size can't be greater than actual input size"
        )
