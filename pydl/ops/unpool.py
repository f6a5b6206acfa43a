"""Max unpooling over one to three axes: checks, autograd, registered operators."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from pydl import backends, layout
from pydl.contract.unpool import MaxUnpoolBackward, MaxUnpoolForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.registry import operator
from pydl.ops.window import by_pytorch, refused

_UNPOOLS = (None, functional.max_unpool1d, functional.max_unpool2d, functional.max_unpool3d)
_forward = operator(MaxUnpoolForward)
_backward = operator(MaxUnpoolBackward)


class _MaxUnpool(Function):
    @staticmethod
    def forward(x, index, output_size, backend):
        return _forward(x, index, output_size, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, *ctx.arguments = inputs
        save(ctx, output, index)

    @staticmethod
    def backward(ctx, grad_y):
        _, backend = ctx.arguments
        return apply(_MaxUnpoolGrad, grad_y, *ctx.saved_tensors, backend), None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_MaxUnpool, tangent, *ctx.saved_tensors, *ctx.arguments)


class _MaxUnpoolGrad(Function):
    """Linear in grad_y: it gathers from the places that index names, so its derivative adds up at
    them what comes there."""

    @staticmethod
    def forward(grad_y, index, backend):
        return _backward(grad_y, index, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, index, ctx.backend = inputs
        save(ctx, output, index)
        ctx.shape = grad_y.shape

    @staticmethod
    def backward(ctx, grad_grad_x):
        (index,) = ctx.saved_tensors
        zeros = layout.planes(grad_grad_x.new_zeros(ctx.shape))
        added = zeros.scatter_add(2, layout.planes(index), layout.planes(grad_grad_x))
        return added.reshape(ctx.shape), None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_MaxUnpoolGrad, tangent, *ctx.saved_tensors, ctx.backend)


def _output_size(
    name: str,
    x: torch.Tensor,
    window: tuple[list[int], list[int], list[int]],
    output_size: Sequence[int] | None,
) -> list[int]:
    """What a max pooling with this window made ``x`` of, checked to be less than a stride away from
    the smallest such size where it is given."""
    kernel, stride, padding = window
    axes = len(kernel)
    usual = [
        (n - 1) * s + k - 2 * p
        for n, k, s, p in zip(x.shape[-axes:], kernel, stride, padding, strict=True)
    ]
    if output_size is not None:
        given = [checks.integer(name, "output_size", size) for size in output_size]
        given = given[2:] if len(given) == axes + 2 else given
        if len(given) != axes:
            raise ValueError(
                f"output_size should be a sequence containing {axes} or {axes + 2} elements, but "
                f"it has a length of '{len(given)}'"
            )
        for axis, (size, n, s) in enumerate(zip(given, usual, stride, strict=True)):
            if not n - s < size < n + s:
                raise ValueError(
                    f'invalid output_size "{given}" (dim {axis} must be between {n - s} and '
                    f"{n + s})"
                )
        usual = given
    for axis, n in enumerate(usual):
        if n < 0:
            raise ValueError(
                "max_unpooling: output_size must contain non-negative spatial dimensions, but got "
                f"output_size[{axis}]={n}"
            )
    return usual


def max_unpool(
    axes: int,
    x: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    output_size: Sequence[int] | None,
    backend: str | None,
) -> torch.Tensor:
    name = f"max_unpool{axes}d"
    checks.tensor(name, "input", x)
    checks.tensor(name, "indices", indices)
    window = kernel_size, stride, padding, output_size
    backend = backends.choose("unpool", backend, x, "max_unpool_forward", arguments=window)
    arguments = indices, *window
    if backend == "aten":
        return by_pytorch(_UNPOOLS[axes], x, *arguments)
    try:
        size = _checked(name, axes, x, *arguments)
    except (TypeError, RuntimeError, ValueError) as error:
        raise refused(error, _UNPOOLS[axes], x, *arguments) from None
    unbatched = x.ndim == axes + 1
    batch, places = (x.unsqueeze(0), indices.unsqueeze(0)) if unbatched else (x, indices)
    batch = as_autocast(name, batch.resolve_neg())
    if axes == 3:
        batch = layout.contiguous(batch)  # as PyTorch, whose volumes are never channels last here
    if axes == 1:  # a line is unpooled as a map with one column
        batch, places, size = batch.unsqueeze(3), places.unsqueeze(3), [*size, 1]
    if needs_grad(batch):
        y = _MaxUnpool.apply(batch, places, size, backend)
    else:
        y = _forward(batch, places, size, backend)
    y = y.squeeze(3) if axes == 1 else y
    return y.squeeze(0) if unbatched else y


def _checked(
    name: str,
    axes: int,
    x: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    output_size: Sequence[int] | None,
) -> list[int]:
    """The output's size, where nothing is wrong with the arguments."""
    kernel = checks.axes(name, "kernel_size", kernel_size, axes, least=1)
    steps = kernel if stride is None else checks.axes(name, "stride", stride, axes, least=1)
    padding = checks.axes(name, "padding", padding, axes, least=0)
    checks.rank(name, x, axes)
    size = _output_size(name, x, (kernel, steps, padding), output_size)
    if indices.dtype != torch.int64:
        raise RuntimeError(f"elements in indices should be type int64 but got: {indices.dtype}")
    if indices.shape != x.shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(x.shape)}), "
            f"but got indices tensor with shape: {list(indices.shape)}"
        )
    if 0 in x.shape[-axes - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, but got "
            f"{list(x.shape)} with dimension {list(x.shape).index(0, x.ndim - axes - 1)} being "
            "empty."
        )
    return size
