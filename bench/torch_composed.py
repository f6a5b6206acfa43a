"""The launches of PyTorch's batch normalisation, depthwise convolution and of what its layers are
composed of, beside those of bench/torch_launches.py."""

from typing import Any

import torch
from torch_iterator import NAMES, captured, ceil_div, elementwise, launch, pack
from torch_launches import (
    Launches,
    _contiguous,
    _lambda,
    _last_power,
    cleared,
    copy,
    fill,
    operator,
)
from torch_reduce import total


class NotOwnError(Exception):
    """What serves this is in another library."""


# Convolution of each channel by itself


def _accessor(t: torch.Tensor) -> tuple[Any, ...]:
    return (t, *t.shape, *t.stride())


def _own(x: torch.Tensor, weight: torch.Tensor, groups: int) -> None:
    """Of depthwise convolutions those in float32 and in planes."""
    depthwise = groups == x.shape[1] > 1 and weight.shape[0] % groups == 0
    if not depthwise or not x.is_contiguous() or x.dtype != torch.float32:
        raise NotOwnError("cuDNN")


def _geometry(
    weight: torch.Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> tuple[int, ...]:
    """Width before height."""
    sizes = (weight.shape[2:], stride, padding, dilation)
    return tuple(n for size in sizes for n in reversed(list(size)))


@operator("convolution")
def _depthwise(
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Launches:
    _own(x, weight, groups)
    f, c, size = out.shape[1], x.shape[1], weight.shape[-1]
    name = rf"at::native::conv_depthwise2d_forward_kernel<{size}, {NAMES[x.dtype]}, int>"
    added = (0, 0, 0) if bias is None else _accessor(bias)
    body = pack(
        "P8iP8iP8iP2i?15i",
        *_accessor(x),
        *_accessor(out),
        *_accessor(weight),
        *added,
        bias is not None,
        *(out.numel(), f, f // c, *reversed(x.shape[2:]), *reversed(out.shape[2:])),
        *_geometry(weight, stride, padding, dilation),
    )
    reads = (x, weight) if bias is None else (x, weight, bias)
    yield launch(name, (ceil_div(out.numel(), 1024),), (1024,), body, reads=reads, writes=(out,))


@operator("convolution_backward")
def _depthwise_backward(
    out: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> Launches:
    _own(x, weight, groups)
    grad_input, grad_weight, grad_bias = out
    (n, c), f, t = x.shape[:2], grad.shape[1], NAMES[x.dtype]
    places = (*reversed(x.shape[2:]), *reversed(grad.shape[2:]))
    places = (*places, *_geometry(weight, stride, padding, dilation))
    name = rf"at::native::conv_depthwise2d_grad_weight_kernel<{t}, unsigned int>"
    accessors = (*_accessor(grad), *_accessor(x), *_accessor(grad_weight))
    body = pack("P8iP8iP8i16i", *accessors, n, c, f, f // c, *places)
    grid, block = (grad_weight.numel(),), (min(32 * n, 256),)
    yield launch(name, grid, block, body, reads=(grad, x), writes=(grad_weight,), alone=False)
    step = stride[0] if stride[0] == stride[1] and stride[0] in (1, 2) else 0
    name = rf"at::native::conv_depthwise2d_backward_kernel<{weight.shape[-1]}, {step}, {t}, int>"
    accessors = (*_accessor(grad), *_accessor(grad_input), *_accessor(weight))
    body = pack("P8iP8iP8i16i", *accessors, x.numel(), c, f // c, f, *places)
    grid, block = (ceil_div(x.numel(), 1024),), (1024,)
    yield launch(name, grid, block, body, reads=(grad, weight), writes=(grad_input,))
    if wanted[2]:
        yield total(grad_bias.reshape(1, -1, 1, 1), grad)


# Batch normalisation in training


def _rows(x: torch.Tensor, *, joined: bool = False) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block of the kernels for channels last; ``joined`` where blocks sum together."""
    channels, rows = x.shape[1], x.numel() // x.shape[1]
    width = min(_last_power(channels), 32)
    height = min(_last_power(ceil_div(rows, 16)), 512 // width)
    if width * height != 512:
        width = min(_last_power(channels), 512 // height)
    blocks = min(ceil_div(rows, 16 * height), 128)
    return (ceil_div(channels, width), 1 if joined and blocks < 8 else blocks), (width, height)


def _scratch(grid: tuple[int, int], values: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where blocks leave sums for one another, and their counters."""
    return torch.zeros(values * grid[1]), torch.zeros(grid[0], dtype=torch.int32)


def _native(x: torch.Tensor) -> None:
    """Whether cuDNN serves it: all but bfloat16."""
    if x.dtype != torch.bfloat16 or x.is_contiguous():
        raise NotOwnError("cuDNN")


@operator("native_batch_norm")
def _batch_norm(
    out: tuple[torch.Tensor, ...],
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: None,
    variance: None,
    training: bool,
    momentum: float,
    eps: float,
) -> Launches:
    _native(x)
    t, (channels, rows) = NAMES[x.dtype], (x.shape[1], x.numel() // x.shape[1])
    values = x.float()
    mean = values.mean((0, 2, 3))
    spread = values.var((0, 2, 3), correction=0)
    grid, block = _rows(x, joined=True)
    staged, counters = _scratch(grid, 4 * channels)
    name = "at::native::batch_norm_collect_statistics_channels_last_kernel<at::native::Var, "
    body = pack("5P2if", x, mean, spread, staged, counters, rows, channels, eps)
    reads = (x, staged, counters)
    name = rf"{name}{t}, float, 4>"
    yield launch(name, grid, block, body, reads=reads, writes=(mean, spread), alone=False)
    inverse = (spread + eps).rsqrt()
    functor = _lambda("batch_norm_calc_invstd", "float")
    yield elementwise(functor, captured(pack("f", eps)), inverse, spread)
    grid, block = _rows(x)
    name = rf"at::native::batch_norm_transform_input_channels_last_kernel<{t}, float, {t}, 4>"
    y = out[0] if training else x
    body = pack("7P2i?", x, 0, mean, inverse, weight, bias, y, rows, channels, False)
    reads = (x, mean, inverse, weight, bias)
    yield launch(name, grid, block, body, reads=reads, writes=(y,))


@operator("native_batch_norm_backward")
def _batch_norm_backward(
    out: tuple[torch.Tensor, ...],
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    running_mean: None,
    running_variance: None,
    mean: torch.Tensor,
    inverse: torch.Tensor,
    training: bool,
    eps: float,
    wanted: list[bool],
) -> Launches:
    _native(x)
    t, (channels, rows) = NAMES[x.dtype], (x.shape[1], x.numel() // x.shape[1])
    mean, inverse = mean.float(), inverse.float()
    each = grad.float()
    sums = each.sum((0, 2, 3))
    products = (each * (x.float() - mean.reshape(1, -1, 1, 1))).sum((0, 2, 3))
    grid, block = _rows(x, joined=True)
    staged, counters = _scratch(grid, 2 * channels)
    name = rf"at::native::batch_norm_backward_reduce_channels_last_kernel<4, {t}, float, {t}>"
    writes = (sums, products, out[1], out[2])
    body = pack("10P2i", x, grad, mean, inverse, *writes, staged, counters, rows, channels)
    reads = (x, grad, mean, inverse, staged, counters)
    yield launch(name, grid, block, body, reads=reads, writes=writes, alone=False)
    grid, block = _rows(x)
    name = rf"at::native::batch_norm_backward_elemt_channels_last_kernel<4, {t}, float, {t}>"
    name += r"\([^)]*float, int, int\)"
    reads = (grad, x, mean, inverse, weight, sums, products)
    body = pack("8Pf2i", *reads, out[0], 1 / rows, rows, channels)
    yield launch(name, grid, block, body, reads=reads, writes=(out[0],))


# Local response normalisation across channels


@operator("constant_pad_nd")
def _pad(out: torch.Tensor, x: torch.Tensor, pads: list[int], value: float = 0) -> Launches:
    inner, source = out, x
    for axis, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True)):
        dim = x.ndim - 1 - axis
        source = source.narrow(dim, max(-before, 0), x.shape[dim] + min(before, 0) + min(after, 0))
        start, end = max(before, 0), max(after, 0)
        inner = inner.narrow(dim, start, out.shape[dim] - start - end)
    if any(pad > 0 for pad in pads):
        yield fill(out, value) if value else cleared(out)
    yield copy(source, inner)


def _frames(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, *x.shape[2:])


@operator("avg_pool3d")
def _average_3d(
    out: torch.Tensor,
    x: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: tuple[int, ...] = (0, 0, 0),
) -> Launches:
    x = yield from _contiguous(x)
    inside, outside = _frames(x), _frames(out)
    kind = rf"{kernel[2]}, {NAMES[x.dtype]}, float"
    body = pack(
        "P8qP8q8i?2i",
        *_accessor(inside),
        *_accessor(outside),
        *(*kernel[:2], *stride, *padding, True, 0, 0),
    )
    name = rf"at::native::avg_pool3d_cuda_update_output<{kind}>"
    yield launch(name, _sheets(outside), (32, 8), body, reads=(inside,), writes=(outside,))


def _sheets(t: torch.Tensor) -> tuple[int, int, int]:
    slices, frames, h, w = t.shape
    return ceil_div(w, 32), ceil_div(h, 8), slices * frames


@operator("avg_pool3d_backward")
def _average_3d_backward(
    out: torch.Tensor,
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    *_: Any,
) -> Launches:
    assert set(stride) == {1} and not any(padding)
    grad = yield from _contiguous(grad)
    yield cleared(out)
    inside, outside = _frames(out), _frames(grad)
    factor = 1 / (kernel[0] * kernel[1] * kernel[2])
    body = pack("P8qP8q3ifi", *_accessor(outside), *_accessor(inside), *kernel, factor, 0)
    name = rf"at::native::avg_pool3d_single_backward_out_frame_stride1<{NAMES[x.dtype]}, float>"
    yield launch(name, _sheets(inside), (32, 8), body, reads=(outside,), writes=(inside,))


# Pyramids


@operator("cat")
def _cat(out: torch.Tensor, parts: list[torch.Tensor], dim: int = 0) -> Launches:
    """Along the last axis, each row of each part in whole words of 16 bytes."""
    if not out.numel():
        return
    assert out.ndim == 2 and dim % 2 == 1 and all(t.is_contiguous() for t in parts)
    vector, room = 16 // out.element_size(), 128
    assert not any(t.shape[1] % vector for t in parts)
    sizes = [t.shape[1] for t in parts]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]

    def row(values: list[int]) -> list[int]:
        return values + [0] * (room - len(values))

    metadata = (*row([t.data_ptr() for t in parts]), *row(starts), *row(sizes))
    metadata = (*metadata, *row([t.numel() for t in parts]), *row([1] * len(parts)), *[0] * 8)
    rows, width = out.shape[0], out.shape[1] // vector
    places = (rows, width, 0, 0, width, 1, 0, 0)
    body = pack(f"P{room}P{3 * room}I{room}?8I8IiI", out, *metadata, *places, 1, 1)
    opaque = rf"at::native::OpaqueType<{out.element_size()}u>"
    kind = rf"{opaque}, unsigned int, 2, {room}, 1, 16, {vector}"
    grid = min(ceil_div(ceil_div(max(t.numel() for t in parts), vector), 128), 132 * 32)
    name = rf"at::native::CatArrayBatchedCopy_vectorized<{kind}>"
    yield launch(name, (grid, len(parts)), (128,), body, reads=parts, writes=(out,))
