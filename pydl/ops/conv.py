"""Convolution over one to three axes: checks, autograd, registered operators.

The forward is linear in x and in weight, and so is each gradient in its two operands; each one's
derivatives are the other two, which makes the three Functions below closed under differentiation to
any order.
"""

from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply
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


def _product(x, weight, bias, window):
    *geometry, backend = window
    return _forward(x, weight, bias, None, *geometry, "none", 0.0, backend)


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, window):
        ctx.save_for_backward(x, weight)
        ctx.window = window
        return _product(x, weight, bias, window)

    @staticmethod
    def backward(ctx, grad_y):
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_x = (
            apply(_ConvGradInput, grad_y, weight, tuple(x.shape[2:]), ctx.window)
            if needs_x
            else None
        )
        grad_weight = (
            apply(_ConvGradWeight, grad_y, x, tuple(weight.shape[2:]), ctx.window)
            if needs_weight
            else None
        )
        grad_bias = apply(_ConvGradBias, grad_y, ctx.window[-1]) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None


class _ConvGradInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_y, weight, input_size, window):
        ctx.save_for_backward(grad_y, weight)
        ctx.window = window
        return _grad_input(grad_y, weight, input_size, *window)

    @staticmethod
    def backward(ctx, grad_grad_x):
        grad_y, weight = ctx.saved_tensors
        needs_grad_y, needs_weight, _, _ = ctx.needs_input_grad
        for_grad_y = apply(_Conv, grad_grad_x, weight, None, ctx.window) if needs_grad_y else None
        kernel_size = tuple(weight.shape[2:])
        for_weight = (
            apply(_ConvGradWeight, grad_y, grad_grad_x, kernel_size, ctx.window)
            if needs_weight
            else None
        )
        return for_grad_y, for_weight, None, None


class _ConvGradWeight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grad_y, x, kernel_size, window):
        ctx.save_for_backward(grad_y, x)
        ctx.window = window
        return _grad_weight(grad_y, x, kernel_size, *window)

    @staticmethod
    def backward(ctx, grad_grad_weight):
        grad_y, x = ctx.saved_tensors
        needs_grad_y, needs_x, _, _ = ctx.needs_input_grad
        for_grad_y = apply(_Conv, x, grad_grad_weight, None, ctx.window) if needs_grad_y else None
        input_size = tuple(x.shape[2:])
        for_x = (
            apply(_ConvGradInput, grad_y, grad_grad_weight, input_size, ctx.window)
            if needs_x
            else None
        )
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
    if isinstance(groups, bool) or not isinstance(groups, int):
        raise TypeError(f"{name}(): argument 'groups' must be int, not {type(groups).__name__}")
    if groups < 1:
        raise RuntimeError(f"non-positive groups is not supported, got groups={groups}")
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
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != shape[0]):
        raise RuntimeError(
            f"Given weight of size {shape}, expected bias to be 1-dimensional with {shape[0]} "
            "elements, "
            f"but got bias of size {list(bias.shape)} instead"
        )


def _autocast(x: torch.Tensor, *others: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """Operands in autocast's low precision where it is on: PyTorch sends convolution there."""
    device = x.device.type
    operands = (x, *others)
    if not torch.is_autocast_enabled(device) or x.dtype == torch.float64:
        return operands
    low = torch.get_autocast_dtype(device)
    return tuple(None if operand is None else operand.to(low) for operand in operands)


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
    backend = backends.choose("conv", backend, x)
    if backend == "aten":
        return getattr(torch.nn.functional, name)(
            x, weight, bias, stride, padding, dilation, groups
        )
    checks.rank(name, x, axes)
    if weight.ndim != axes + 2:
        raise RuntimeError(
            f"{name}: weight should have {axes + 2} dimensions, got weight of size "
            f"{list(weight.shape)}"
        )
    unbatched = x.ndim == axes + 1
    x, weight, bias = _autocast(x.unsqueeze(0) if unbatched else x, weight, bias)
    for other, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            checks.tensor(name, other, tensor)
            checks.same_device_and_dtype(name, x, other, tensor)
    _check_shapes(name, x, weight, bias, groups)
    stride = checks.axes(name, "stride", stride, axes, least=1)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    x, padding = _resolve_padding(name, x, weight.shape[2:], stride, padding, dilation)
    _check_kernel_fits(x, weight, padding, dilation)
    x, weight = x.resolve_neg(), weight.resolve_neg()
    window = (stride, padding, dilation, groups, backend)
    operands = (x, weight) if bias is None else (x, weight, bias)
    if torch.is_grad_enabled() and any(operand.requires_grad for operand in operands):
        y = _Conv.apply(x, weight, bias, window)
    else:
        y = _product(x, weight, bias, window)
    return y.squeeze(0) if unbatched else y


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
