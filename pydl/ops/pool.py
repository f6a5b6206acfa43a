"""Max and average pooling over one to three axes: checks, autograd, registered operators."""

import math
from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.indices import flat_from_offset
from pydl.ops import checks
from pydl.ops.derivatives import apply
from pydl.ops.registry import operator

_WINDOW = "int[] kernel_size, int[] stride, int[] padding"
_INDEX_DTYPE = {"offset": torch.uint8, "flat": torch.int64}


def _max_forward_fake(x, kernel_size, stride, padding, dilation, output_size, index, backend):
    y = layout.resized(x, output_size)
    if index == "none":
        return y, layout.empty((0,), x, dtype=torch.uint8)
    return y, layout.resized(x, output_size, dtype=_INDEX_DTYPE[index])


_max_forward = operator(
    f"max_pool_forward(Tensor x, {_WINDOW}, int[] dilation, SymInt[] output_size, str index, "
    "str backend)"
    " -> (Tensor, Tensor)",
    _max_forward_fake,
)
_max_backward = operator(
    f"max_pool_backward(Tensor grad_y, Tensor index, SymInt[] input_size, {_WINDOW}, int[] "
    "dilation, str backend) -> Tensor",
    lambda grad_y, index, input_size, *_: layout.resized(index, input_size, dtype=grad_y.dtype),
)
_AVERAGE = f"{_WINDOW}, SymInt[] output_size, bool count_include_pad, int divisor, str backend"
_avg_forward = operator(
    f"avg_pool_forward(Tensor x, {_AVERAGE}) -> Tensor",
    lambda x, kernel_size, stride, padding, output_size, *_: layout.resized(x, output_size),
)
_avg_backward = operator(
    f"avg_pool_backward(Tensor grad_y, SymInt[] input_size, {_WINDOW}, bool count_include_pad, "
    "int divisor, str backend)"
    " -> Tensor",
    lambda grad_y, input_size, *_: layout.resized(grad_y, input_size),
)


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, window, output_size, index, return_index, backend):
        y, taken = _max_forward(x, *window, output_size, index, backend)
        ctx.save_for_backward(taken)
        ctx.arguments = tuple(x.shape[2:]), window, backend
        if not return_index:
            return y
        ctx.mark_non_differentiable(taken)
        ctx.set_materialize_grads(False)
        return y, taken

    @staticmethod
    def backward(ctx, grad_y, _=None):
        grad_x = None
        if grad_y is not None:
            (index,) = ctx.saved_tensors
            grad_x = apply(_MaxPoolGrad, grad_y, index, *ctx.arguments)
        return grad_x, None, None, None, None, None


class _MaxPoolGrad(torch.autograd.Function):
    """Linear in grad_y: it scatters to the places that index names, so its derivative gathers from
    them."""

    @staticmethod
    def forward(ctx, grad_y, index, input_size, window, backend):
        ctx.save_for_backward(index)
        ctx.arguments = input_size, window
        return _max_backward(grad_y, index, input_size, *window, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        (index,) = ctx.saved_tensors
        flat = index
        if index.dtype == torch.uint8:
            flat = flat_from_offset(index, *ctx.arguments[:1], *ctx.arguments[1])
        gathered = grad_grad_x.flatten(2).gather(2, flat.flatten(2)).reshape(index.shape)
        return gathered, None, None, None, None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, window, output_size, divide, backend):
        ctx.arguments = tuple(x.shape[2:]), window, divide, backend
        return _avg_forward(x, *window, output_size, *divide, backend)

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_AvgPoolGrad, grad_y, *ctx.arguments), None, None, None, None


class _AvgPoolGrad(torch.autograd.Function):
    """Linear in grad_y and the transpose of the pooling, so its derivative is the pooling."""

    @staticmethod
    def forward(ctx, grad_y, input_size, window, divide, backend):
        ctx.arguments = window, tuple(grad_y.shape[2:]), divide, backend
        return _avg_backward(grad_y, input_size, *window, *divide, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        return apply(_AvgPool, grad_grad_x, *ctx.arguments), None, None, None, None


def _batched(operator_name: str, x: torch.Tensor, axes: int) -> torch.Tensor:
    """The input as (N, C, spatial...), its axes checked."""
    checks.rank(operator_name, x, axes)
    if 0 in x.shape[-axes - 1 :]:
        raise RuntimeError(
            f"Expected {axes + 1}D or {axes + 2}D (batch mode) tensor with optional 0 dim batch "
            "size for input to "
            f"{operator_name}, but got: {list(x.shape)}"
        )
    return (x if x.ndim == axes + 2 else x.unsqueeze(0)).resolve_neg()


def _window(
    name: str,
    axes: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> tuple[list[int], list[int], list[int], list[int]]:
    kernel = checks.axes(name, "kernel_size", kernel_size, axes, least=1)
    # An absent stride is None in Python and an empty list in PyTorch's own schemas.
    stride = (
        kernel
        if stride is None or (isinstance(stride, Sequence) and not stride)
        else checks.axes(name, "stride", stride, axes, least=1)
    )
    padding = checks.axes(name, "padding", padding, axes, least=0)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of effective kernel size, "
                f"but got pad={p}, kernel_size={k} and dilation={d}"
            )
    return kernel, stride, padding, dilation


def _output_size(
    name: str,
    x: torch.Tensor,
    window: tuple[list[int], list[int], list[int], list[int]],
    ceil_mode: bool,
) -> list[int]:
    """floor((n + 2p - d(k - 1) - 1) / s) + 1; ceil mode rounds up, but for a window that would
    start beyond the input."""
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], *window, strict=True):
        reach = n + 2 * p - d * (k - 1) - 1
        out = (reach + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= n + p:
            out -= 1
        sizes.append(out)
    if min(sizes) < 1:
        raise RuntimeError(
            f"{name}: Given input size: {tuple(x.shape[1:])}. Calculated output size: "
            f"{(x.shape[1], *sizes)}. "
            "Output size is too small"
        )
    return sizes


def max_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
    return_indices: bool,
    backend: str | None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    name = f"max_pool{axes}d"
    checks.tensor(name, "input", x)
    backend = backends.choose("pool3d" if axes == 3 else "pool", backend, x)
    if backend == "aten":
        pool = getattr(torch.nn.functional, name)
        return pool(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    window = _window(name, axes, kernel_size, stride, padding, dilation)
    batch = _batched(name, x, axes)
    output_size = _output_size(name, batch, window, ceil_mode)
    wants_grad = x.requires_grad and torch.is_grad_enabled()
    index = "none" if not wants_grad else "offset" if math.prod(window[0]) <= 256 else "flat"
    index = "flat" if return_indices else index
    if wants_grad:
        results = _MaxPool.apply(batch, window, output_size, index, return_indices, backend)
        y, taken = results if return_indices else (results, None)
    else:
        y, taken = _max_forward(batch, *window, output_size, index, backend)
    if x.ndim == axes + 1:
        y, taken = y.squeeze(0), taken.squeeze(0) if return_indices else None
    return (y, taken) if return_indices else y


def avg_pool(
    axes: int,
    x: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    backend: str | None,
) -> torch.Tensor:
    name = f"avg_pool{axes}d"
    checks.tensor(name, "input", x)
    backend = backends.choose("pool3d" if axes == 3 else "pool", backend, x)
    if backend == "aten":
        pool = getattr(torch.nn.functional, name)
        # PyTorch's 1-D average takes no divisor.
        rest = () if axes == 1 else (divisor_override,)
        return pool(x, kernel_size, stride, padding, ceil_mode, count_include_pad, *rest)
    if divisor_override == 0:
        raise RuntimeError(f"{name}: divisor must be not zero")
    window = _window(name, axes, kernel_size, stride, padding, 1)
    batch = _batched(name, x, axes)
    output_size = _output_size(name, batch, window, ceil_mode)
    divide = bool(count_include_pad), divisor_override or 0
    if x.requires_grad and torch.is_grad_enabled():
        y = _AvgPool.apply(batch, window[:3], output_size, divide, backend)
    else:
        y = _avg_forward(batch, *window[:3], output_size, *divide, backend)
    return y.squeeze(0) if x.ndim == axes + 1 else y
