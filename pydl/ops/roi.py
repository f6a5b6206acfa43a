"""RoIAlign and RoI pooling: checks, autograd, registered operators."""

from collections.abc import Sequence

import torch

from pydl import backends, layout
from pydl.contract.roi import RoiAlignBackward, RoiAlignForward, RoiPoolBackward, RoiPoolForward
from pydl.ops import checks
from pydl.ops.autocast import as_autocast
from pydl.ops.derivatives import Function, apply, needs_grad, save
from pydl.ops.registry import operator

_align_forward = operator(RoiAlignForward)
_align_backward = operator(RoiAlignBackward)
_pool_forward = operator(RoiPoolForward)
_pool_backward = operator(RoiPoolBackward)


class _RoIAlign(Function):
    @staticmethod
    def forward(x, boxes, output_size, align, channels_last, backend):
        return _align_forward(x, boxes, output_size, *align, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, boxes, *ctx.arguments = inputs
        save(ctx, output, boxes)
        ctx.input_shape = tuple(x.shape)

    @staticmethod
    def backward(ctx, grad_y):
        rest = ctx.arguments[1:]
        grad_x = apply(_RoIAlignGrad, grad_y, *ctx.saved_tensors, ctx.input_shape, *rest)
        return grad_x, None, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_RoIAlign, tangent, *ctx.saved_tensors, *ctx.arguments)


class _RoIAlignGrad(Function):
    """Linear in grad_y and the transpose of RoIAlign, so its derivative is RoIAlign."""

    @staticmethod
    def forward(grad_y, boxes, input_shape, align, channels_last, backend):
        return _align_backward(grad_y, boxes, input_shape, *align, channels_last, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_y, boxes, *ctx.arguments = inputs
        save(ctx, output, boxes)
        ctx.output_size = tuple(grad_y.shape[2:])

    @staticmethod
    def backward(ctx, grad_grad_x):
        rest = ctx.arguments[1:]
        grad = apply(_RoIAlign, grad_grad_x, *ctx.saved_tensors, ctx.output_size, *rest)
        return grad, None, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_RoIAlignGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


class _RoIPool(Function):
    @staticmethod
    def forward(x, boxes, output_size, scale, backend):
        return _pool_forward(x, boxes, output_size, scale, True, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, boxes, _, scale, backend = inputs
        _, index = output
        ctx.mark_non_differentiable(index)
        ctx.set_materialize_grads(False)
        save(ctx, output, index, boxes)
        ctx.arguments = tuple(x.shape), scale, layout.channels_last(x), backend

    @staticmethod
    def backward(ctx, grad_y, _):
        grad_x = None
        if grad_y is not None:
            grad_x = apply(_RoIPoolGrad, grad_y, *ctx.saved_tensors, *ctx.arguments)
        return grad_x, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return _at_maxima(tangent, *ctx.saved_tensors), None


class _RoIPoolGrad(Function):
    """Linear in grad_y: it scatters to the places that index names, so its derivative gathers from
    them."""

    @staticmethod
    def forward(grad_y, index, boxes, input_shape, scale, channels_last, backend):
        return _pool_backward(grad_y, index, boxes, input_shape, scale, channels_last, backend)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, index, boxes, *ctx.arguments = inputs
        save(ctx, output, index, boxes)

    @staticmethod
    def backward(ctx, grad_grad_x):
        gathered = _at_maxima(grad_grad_x, *ctx.saved_tensors)
        return gathered, None, None, None, None, None, None

    @staticmethod
    def push(ctx, tangent, *_):
        return apply(_RoIPoolGrad, tangent, *ctx.saved_tensors, *ctx.arguments)


def _at_maxima(maps: torch.Tensor, index: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """What lies in ``maps`` (N, C, H, W) at the places that the index of each box's maxima names; 0
    where a bin has none."""
    rows = maps.flatten(2)[boxes[:, 0].long()]  # (K, C, H * W)
    gathered = rows.gather(2, index.flatten(2).clamp_min(0)).reshape(index.shape)
    return torch.where(index >= 0, gathered, 0)


def _boxes(name: str, x: torch.Tensor, boxes: torch.Tensor | Sequence[torch.Tensor]):
    """The boxes as one tensor (K, 5), the image's number first, checked."""
    boxes = _listed(name, x, boxes) if not isinstance(boxes, torch.Tensor) else boxes
    boxes = as_autocast(name, boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise RuntimeError(
            f"{name}: boxes should be a tensor (K, 5) or a list of tensors (L, 4), but got a "
            f"tensor {list(boxes.shape)}"
        )
    checks.same_device_and_dtype(name, x, "boxes", boxes)
    return boxes.detach().resolve_neg()


def _listed(name: str, x: torch.Tensor, boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    if not isinstance(boxes, Sequence) or isinstance(boxes, str):
        raise TypeError(
            f"{name}(): argument 'boxes' must be Tensor or list of Tensors, not "
            f"{type(boxes).__name__}"
        )
    if len(boxes) != x.shape[0]:
        raise RuntimeError(
            f"{name}: a list of boxes should have an element for each image, but got {len(boxes)} "
            f"for {x.shape[0]} images"
        )
    for of_image in boxes:
        checks.tensor(name, "boxes", of_image)
        if of_image.ndim != 2 or of_image.shape[1] != 4:
            raise RuntimeError(
                f"{name}: a list of boxes should hold tensors (L, 4), but got one "
                f"{list(of_image.shape)}"
            )
        checks.same_device_and_dtype(name, x, "boxes", as_autocast(name, of_image))
    numbered = [
        torch.cat([torch.full_like(of_image[:, :1], n), of_image], 1)
        for n, of_image in enumerate(boxes)
    ]
    return torch.cat(numbered) if numbered else x.new_zeros(0, 5)


def _map(name: str, x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4:
        raise RuntimeError(
            f"Expected 4D (batched) input to {name}, but got input of size: {list(x.shape)}"
        )
    if 0 in x.shape[2:]:
        raise RuntimeError(
            f"{name}: Expected input to have non-zero size for its spatial dimensions, but got "
            f"{list(x.shape)}"
        )
    return as_autocast(name, x.resolve_neg())


def _choose(name: str, x: torch.Tensor, backend: str | None) -> str:
    checks.tensor(name, "input", x)
    if x.is_quantized:
        raise RuntimeError(f"{name}: quantized tensors are not served; dequantize() them first")
    return backends.choose("roi", backend, x, f"{name}_forward")


def roi_align(
    x: torch.Tensor,
    boxes: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
    backend: str | None,
) -> torch.Tensor:
    name, dtype = "roi_align", getattr(x, "dtype", None)
    backend = _choose(name, x, backend)
    x = _map(name, x)
    size = checks.axes(name, "output_size", output_size, 2, least=0)
    boxes = _boxes(name, x, boxes)
    ratio = checks.integer(name, "sampling_ratio", sampling_ratio)
    align = float(spatial_scale), ratio, bool(aligned)
    if needs_grad(x):
        y = _RoIAlign.apply(x, boxes, size, align, layout.channels_last(x), backend)
    else:
        y = _align_forward(x, boxes, size, *align, backend)
    return y.to(dtype)


def roi_pool(
    x: torch.Tensor,
    boxes: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float,
    backend: str | None,
) -> torch.Tensor:
    name, dtype = "roi_pool", getattr(x, "dtype", None)
    backend = _choose(name, x, backend)
    x = _map(name, x)
    size = checks.axes(name, "output_size", output_size, 2, least=0)
    boxes = _boxes(name, x, boxes)
    if needs_grad(x):
        y, _ = _RoIPool.apply(x, boxes, size, float(spatial_scale), backend)
    else:
        y, _ = _pool_forward(x, boxes, size, float(spatial_scale), False, backend)
    return y.to(dtype)
