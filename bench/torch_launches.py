"""The launches by which PyTorch serves an operator on a GPU: kernel, grid, block and parameters, as
its public sources have them (aten/src/ATen/native/cuda, version as in bench/torch_kernels.py)."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch_iterator import (
    NAMES,
    TorchLaunch,
    aligned,
    axes,
    captured,
    ceil_div,
    elementwise,
    launch,
    offsets,
    pack,
)
from torch_reduce import mean

Launches = Iterator[TorchLaunch]
OPERATORS: dict[str, Callable[..., Launches]] = {}


def operator(*names: str) -> Callable:
    """Registers the launches of operators, given their result and then their arguments."""

    def register(function: Callable[..., Launches]) -> Callable[..., Launches]:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


def _lambda(function: str, arguments: str) -> str:
    """Of the one that is dispatched by dtype within a function, with arguments of this dtype."""
    return rf"at::native::{function}\([^()]*\)(::\{{lambda\(\)#\d+\}}::operator\(\)\(\) const)*" + (
        rf"::\{{lambda\({arguments}\)#1\}}"
    )


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[-1])


def _last(t: torch.Tensor) -> bool:
    return not t.is_contiguous() and t.is_contiguous(memory_format=torch.channels_last)


# Element by element


def fill(out: torch.Tensor, value: float = 0) -> TorchLaunch:
    name = NAMES[out.dtype]
    held = bytes(torch.tensor([value], dtype=out.dtype).view(torch.uint8).tolist())
    return elementwise(rf"at::native::FillFunctor<{name}>", (len(held), held), out)


def cleared(out: torch.Tensor) -> TorchLaunch:
    """Zeros where later kernels write ``out``."""
    return replace(fill(out), results=())


def copy(source: torch.Tensor, out: torch.Tensor) -> TorchLaunch:
    if axes((out, source)).contiguous:  # cudaMemcpyAsync
        return launch("", (1,), (1,), b"", reads=(source,), writes=(out,))
    functor = _lambda("direct_copy_kernel_cuda", NAMES[out.dtype])
    return elementwise(functor, captured(), out, source, given=True)


def _contiguous(
    t: torch.Tensor,
) -> Generator[TorchLaunch, None, torch.Tensor]:
    """The tensor, or a copy of it in the order of its axes."""
    if t.is_contiguous():
        return t
    made = t.contiguous()
    yield copy(t, made)
    return made


@operator("relu", "relu_")
def _relu(out: torch.Tensor, x: torch.Tensor) -> Launches:
    functor = _lambda("launch_clamp_scalar", NAMES[x.dtype])
    yield elementwise(functor, captured(pack("iff", 0, 0.0, 0.0)), out, x, given=out is x)


@operator("threshold_backward")
def _threshold_backward(
    out: torch.Tensor, grad: torch.Tensor, y: torch.Tensor, _: float
) -> Launches:
    t = NAMES[out.dtype]
    kernel = rf"at::native::threshold_kernel_impl<{t}>\(at::TensorIteratorBase&, {t}, {t}\)"
    functor = rf"at::native::BinaryFunctor<{t}, {t}, {t}, {kernel}::\{{lambda\({t}, {t}\)#1\}}>"
    yield elementwise(functor, captured(bytes(2 * out.element_size())), out, y, grad)


# Windows


def _last_power(n: int) -> int:
    return 1 << n.bit_length() - 1


def _tiles(t: torch.Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int], int, int]:
    """Grid and block of the kernels for channels last over this tensor's elements, the stride of
    the channels among blocks, and how many a thread has."""
    n, c, h, w = t.shape
    x = min(_last_power(c), 32)
    y = min(_last_power(w), 1024 // x)
    z = min(_last_power(h), 1024 // (x * y), 64)
    x = min(_last_power(c), 1024 // (y * z))
    stride = ceil_div(c, 4 * x)
    grid = (n * stride, ceil_div(w, 2 * y), ceil_div(h, 2 * z))
    return grid, (x, y, z), stride, ceil_div(c, x * stride)


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any = None) -> tuple[int, ...]:
    sizes = (kernel, stride or kernel, padding, *([dilation] if dilation is not None else []))
    return tuple(n for size in sizes for n in _pair(size))


@operator("max_pool2d_with_indices")
def _max_pool(
    out: tuple[torch.Tensor, torch.Tensor],
    x: torch.Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Launches:
    y, index = out
    window, t = _window(kernel, stride, padding, dilation), NAMES[x.dtype]
    if _last(x):
        grid, block, step, each = _tiles(y)
        name = rf"at::native::max_pool_forward_nhwc<{t}, int>"
        values = (x, *x.shape, *y.shape[2:], *window, *x.stride(), step, each, y, index)
        body = pack("P20i2P", *values)
    else:
        grid, block = (ceil_div(y.numel(), 256), 1, 1), (256, 1, 1)
        name = rf"at::native::max_pool_forward_nchw<{t}, int>"
        values = (y.numel(), x, *x.shape[1:], *y.shape[2:], *window, y, index)
        body = pack("iP3q10i2P", *values)
    yield launch(name, grid, block, body, reads=(x,), writes=(y, index))


@operator("max_pool2d_with_indices_backward")
def _max_pool_backward(
    out: torch.Tensor,
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    index: torch.Tensor,
) -> Launches:
    window, t = _window(kernel, stride, padding, dilation), NAMES[x.dtype]
    yield cleared(out)
    if _last(x):
        grid, block, step, each = _tiles(out)
        name = rf"at::native::max_pool_backward_nhwc<{t}, float>"
        sizes = (*x.shape, *grad.shape[2:], *window, *grad.stride()[1:], step, each)
        body = pack("2Pi3q15iP", grad, index, *sizes, out)
    else:
        n, c, h, w = x.shape
        grid, block = (ceil_div(h * w, 256), n, c), (256, 1, 1)
        name = rf"at::native::max_pool_backward_nchw<{t}, float, int>"
        body = pack("2P14iP", grad, index, n, c, h, w, *grad.shape[2:], *window, out)
    yield launch(name, grid, block, body, reads=(grad, index), writes=(out,))


@operator("avg_pool2d")
def _average(
    out: torch.Tensor,
    x: torch.Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    include: bool = True,
    divisor: int | None = None,
) -> Launches:
    kind, sizes = ("_nhwc", "3q8i") if _last(x) else ("", "4q7i")
    name = rf"at::native::avg_pool2d_out_cuda_frame{kind}<{NAMES[x.dtype]}, float>"
    window = _window(kernel, stride, padding)
    values = (out.numel(), x, *x.shape[1:], *out.shape[2:], *window, out)
    body = pack(f"iP{sizes}Pi2?", *values, divisor or 0, include, divisor is not None)
    yield launch(name, (ceil_div(out.numel(), 1024),), (1024,), body, reads=(x,), writes=(out,))


@operator("avg_pool2d_backward")
def _average_backward(
    out: torch.Tensor,
    grad: torch.Tensor,
    x: torch.Tensor,
    kernel: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    include: bool,
    divisor: int | None,
) -> Launches:
    kind, sizes = ("_nhwc", "3q8i") if _last(x) else ("", "5q6i")
    name = rf"at::native::avg_pool2d_backward_out_cuda_frame{kind}<{NAMES[x.dtype]}, float, int>"
    window = _window(kernel, stride, padding)
    values = (x.numel(), grad, *x.shape[1:], *grad.shape[2:], *window, out)
    body = pack(f"iP{sizes}Pi2?", *values, divisor or 0, include, divisor is not None)
    yield launch(name, (ceil_div(x.numel(), 1024),), (1024,), body, reads=(grad,), writes=(out,))


@operator("_adaptive_avg_pool2d")
def _adaptive_average(out: torch.Tensor, x: torch.Tensor, _: Any) -> Launches:
    t, sizes = NAMES[x.dtype], (*x.shape[2:], *out.shape[2:])
    if _last(x):
        grid, block, step, each = _tiles(out)
        name = rf"at::native::adaptive_average_pool_nhwc<int, {t}>"
        body = pack("2P12i", x, out, *x.shape[:2], *sizes, step, each, *x.stride())
    else:
        grid, block = _planes(x)
        name = rf"at::native::adaptive_average_pool<{t}>"
        body = pack("2P4i3q", x, out, *sizes, *x.stride()[1:])
    yield launch(name, grid, block, body, reads=(x,), writes=(out,))


def _planes(x: torch.Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block of the adaptive kernels for planes."""
    n, c = x.shape[:2]
    return (n * c, max(16 // c, 1), 1), (32, 8, 1)


@operator("_adaptive_avg_pool2d_backward")
def _adaptive_average_backward(out: torch.Tensor, grad: torch.Tensor, x: torch.Tensor) -> Launches:
    t, sizes = NAMES[x.dtype], (*x.shape[2:], *grad.shape[2:])
    yield cleared(out)
    if _last(x):
        grid, block, step, each = _tiles(out)
        name = rf"at::native::adaptive_average_gradinput_nhwc<int, {t}>"
        body = pack("2P12i", out, grad, *x.shape[:2], *sizes, step, each, *grad.stride())
        # A thread reads what others of its block have put into shared memory.
        yield launch(name, grid, block, body, reads=(grad,), writes=(out,), alone=False)
        return
    grad = yield from _contiguous(grad)
    grid, block = _planes(x)
    name = rf"at::native::atomic_adaptive_average_gradinput<{t}>"
    body = pack("2P4i", out, grad, *sizes)
    yield launch(name, grid, block, body, reads=(grad,), writes=(out,), alone=False)


_FLAT = r"\([^)]*\*(, int){4}(, long){0,3}\)"  # not the one for three dimensions, of like name


@operator("adaptive_max_pool2d")
def _adaptive_max(out: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, _: Any) -> Launches:
    x = yield from _contiguous(x)
    y, index = (one.contiguous() for one in out)
    grid, block = _planes(x)
    name = rf"at::native::adaptivemaxpool<{NAMES[x.dtype]}>{_FLAT}"
    sizes = (*x.shape[2:], *y.shape[2:], *x.stride()[1:])
    body = pack("3P4i3q", x, y, index, *sizes)
    yield launch(name, grid, block, body, reads=(x,), writes=(y, index))
    for here, there in zip((y, index), out, strict=True):
        if here is not there:
            yield copy(here, there)


@operator("adaptive_max_pool2d_backward")
def _adaptive_max_backward(
    out: torch.Tensor, grad: torch.Tensor, x: torch.Tensor, index: torch.Tensor
) -> Launches:
    grad = yield from _contiguous(grad)
    index = yield from _contiguous(index)
    plain = out.contiguous()
    yield cleared(plain)
    grid, block = _planes(x)
    name = rf"at::native::atomicadaptivemaxgradinput<{NAMES[x.dtype]}>{_FLAT}"
    body = pack("3P4i", plain, grad, index, *x.shape[2:], *grad.shape[2:])
    yield launch(name, grid, block, body, reads=(grad, index), writes=(plain,), alone=False)
    if plain is not out:
        yield copy(plain, out)


@operator("max_unpool2d")
def _unpool(out: torch.Tensor, x: torch.Tensor, index: torch.Tensor, _: Any) -> Launches:
    x = yield from _contiguous(x)
    index = yield from _contiguous(index)
    yield cleared(out)
    name = rf"at::native::max_unpooling2d_forward_kernel<{NAMES[x.dtype]}>"
    body = pack("q2P5qP", x.numel(), x, index, *x.shape[1:], *out.shape[2:], out)
    grid = ceil_div(x.numel(), 1024)
    yield launch(name, (grid,), (1024,), body, reads=(x, index), writes=(out,))


@operator("gather")
def _gather(out: torch.Tensor, x: torch.Tensor, dim: int, index: torch.Tensor) -> Launches:
    kernel = rf"_cuda_scatter_gather_internal_kernel<false, at::native::OpaqueType<{x.itemsize}>"
    name = rf"_scatter_gather_elementwise_kernel<128, 8, at::native::{kernel}, long>::operator\(\)"
    steps = list(x.stride())
    steps[dim] = 0
    source = x.as_strided(index.shape, steps)
    found = axes((out, source, index))
    closure = aligned(
        (4, offsets(found.shape, found.strides)),
        (8, pack("PqxP2qP", index, x.shape[dim], out, x.stride(dim), out.numel(), x)),
    )
    body = aligned((4, pack("i", out.numel())), (8, closure))
    name += "<at::native::TensorAssign>"
    grid = ceil_div(out.numel(), 1024)
    yield launch(name, (grid,), (128,), body, reads=(x, index), writes=(out,))


# Sums


@operator("mean")
def _mean(out: torch.Tensor, x: torch.Tensor, _: Any, keepdim: bool = False) -> Launches:
    yield mean(out, x)


# Arithmetic


def _binary(functor: str, t: str) -> str:
    return rf"at::native::BinaryFunctor<{t}, {t}, {t}, at::native::binary_internal::{functor}>"


def _scalar(kind: str, t: str) -> str:
    product = "at::native::binary_internal::MulFunctor<float>"
    return rf"at::native::{kind}UnaryFunctor<{t}, {t}, {t}, {product} >"


@operator("mul")
def _multiply(out: torch.Tensor, a: torch.Tensor, b: Any) -> Launches:
    t = NAMES[out.dtype]
    if isinstance(b, torch.Tensor):
        yield elementwise(_binary("MulFunctor<float> ", t), (1, b"\0"), out, a, b)
    else:
        yield elementwise(_scalar("A", t), (4, pack("4xf", b)), out, a)


@operator("div")
def _divide(out: torch.Tensor, a: torch.Tensor, b: Any) -> Launches:
    t = NAMES[out.dtype]
    if isinstance(b, torch.Tensor):
        yield elementwise(_binary(f"DivFunctor<{t}> ", t), (1, b"\0"), out, a, b)
    else:
        yield elementwise(_scalar("B", t), (4, pack("4xf", 1 / b)), out, a)


@operator("add")
def _add(out: torch.Tensor, a: torch.Tensor, b: Any) -> Launches:
    t = NAMES[out.dtype]
    if isinstance(b, torch.Tensor):
        yield elementwise(rf"at::native::CUDAFunctor_add<{t}>", (4, pack("f", 1)), out, a, b)
    else:
        functor = rf"at::native::CUDAFunctorOnSelf_add<{t}>"
        yield elementwise(functor, (4, pack("2f", b, 1)), out, a)


@operator("neg")
def _negative(out: torch.Tensor, x: torch.Tensor) -> Launches:
    yield elementwise(_lambda("neg_kernel_cuda", NAMES[out.dtype]), captured(), out, x)


@operator("sign", "sgn")
def _sign(out: torch.Tensor, x: torch.Tensor) -> Launches:
    yield elementwise(_lambda("sign_kernel_cuda", NAMES[out.dtype]), captured(), out, x)


@operator("abs")
def _absolute(out: torch.Tensor, x: torch.Tensor) -> Launches:
    yield elementwise(rf"at::native::AbsFunctor<{NAMES[out.dtype]}>", (1, b"\0"), out, x)


@operator("pow")
def _power(out: torch.Tensor, x: torch.Tensor, exponent: float) -> Launches:
    t = NAMES[out.dtype]
    if exponent == 1:
        yield copy(x, out)
    elif exponent in (0.5, -0.5):
        name = "sqrt_kernel_cuda" if exponent > 0 else "rsqrt_kernel_cuda"
        yield elementwise(_lambda(name, t), captured(), out, x)
    else:
        number = 1 if exponent == 2 else 4
        functor = rf"at::native::pow_tensor_scalar_kernel_impl<{t}, {t}>\([^()]*\)::"
        held = bytes(torch.tensor([exponent], dtype=out.dtype).view(torch.uint8).tolist())
        held = b"" if exponent == 2 else held
        functor += rf"\{{lambda\({t}\)#{number}\}}"
        yield elementwise(functor, captured(held), out, x)


@operator("clone")
def _clone(out: torch.Tensor, x: torch.Tensor) -> Launches:
    yield copy(x, out)


@operator("copy_")
def _copy(out: torch.Tensor, to: torch.Tensor, x: torch.Tensor) -> Launches:
    yield copy(x, to)


@operator("zeros_like", "new_zeros")
def _zeros(out: torch.Tensor, *_: Any) -> Launches:
    yield cleared(out)
