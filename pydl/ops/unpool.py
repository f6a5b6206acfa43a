"""Max unpooling over one to three axes: checks, autograd, registered operators."""

from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.ops import checks
from pydl.ops.derivatives import apply_with_context as apply
from pydl.ops.derivatives import needs_grad
from pydl.ops.registry import operator

_forward = operator(
    "max_unpool_forward(Tensor x, Tensor index, SymInt[] output_size, str backend) -> Tensor",
    lambda x, index, output_size, _: layout.resized(x, output_size),
)
_backward = operator(
    "max_unpool_backward(Tensor grad_y, Tensor index, str backend) -> Tensor",
    lambda grad_y, index, _: layout.resized(index, index.shape[2:], dtype=grad_y.dtype),
)


class _MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, index, output_size, backend):
        ctx.save_for_backward(index)
        ctx.backend = backend
        return _forward(x, index, output_size, backend)

    @staticmethod
    def backward(ctx, grad_y):
        return apply(_MaxUnpoolGrad, grad_y, *ctx.saved_tensors, ctx.backend), None, None, None


class _MaxUnpoolGrad(torch.autograd.Function):
    """Linear in grad_y: it gathers from the places that index names, so its derivative adds up at
    them what comes there."""

    @staticmethod
    def forward(ctx, grad_y, index, backend):
        ctx.save_for_backward(index)
        ctx.shape = grad_y.shape
        return _backward(grad_y, index, backend)

    @staticmethod
    def backward(ctx, grad_grad_x):
        (index,) = ctx.saved_tensors
        zeros = grad_grad_x.new_zeros(ctx.shape).flatten(2)
        added = zeros.scatter_add(2, index.flatten(2), grad_grad_x.flatten(2))
        return added.reshape(ctx.shape), None, None


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
        given = list(output_size)
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
    backend = backends.choose("unpool", backend, x)
    if backend == "aten":
        unpool = getattr(torch.nn.functional, name)
        return unpool(x, indices, kernel_size, stride, padding, output_size)
    kernel = checks.axes(name, "kernel_size", kernel_size, axes, least=1)
    steps = kernel if stride is None else checks.axes(name, "stride", stride, axes, least=1)
    padding = checks.axes(name, "padding", padding, axes, least=0)
    size = _output_size(name, x, (kernel, steps, padding), output_size)
    checks.rank(name, x, axes)
    if indices.dtype != torch.int64:
        raise RuntimeError(
            f"{name}: elements in indices should be type int64 but got: {indices.dtype}"
        )
    if indices.shape != x.shape:
        raise RuntimeError(
            f"{name}: Expected shape of indices to be same as that of the input tensor "
            f"({list(x.shape)}), but got indices tensor with shape: {list(indices.shape)}"
        )
    if 0 in x.shape[-axes - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected input to have non-zero size for non-batch dimensions, but got "
            f"{list(x.shape)} with dimension {list(x.shape).index(0, x.ndim - axes - 1)} being "
            "empty."
        )
    unbatched = x.ndim == axes + 1
    batch, places = (x.unsqueeze(0), indices.unsqueeze(0)) if unbatched else (x, indices)
    batch = batch.resolve_neg()
    if needs_grad(x):
        y = _MaxUnpool.apply(batch, places, size, backend)
    else:
        y = _forward(batch, places, size, backend)
    return y.squeeze(0) if unbatched else y
