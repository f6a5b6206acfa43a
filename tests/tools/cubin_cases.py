"""What test_cubins compiles: calls of the Triton launchers on tensors of the meta device."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from pydl import backends, layout
from pydl.contract.batch_norm import mask as empty_mask
from pydl.contract.conv import ConvForward
from pydl.contract.cross_entropy import CrossEntropyForward

HALF, BF16, FLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@dataclass(frozen=True)
class Case:
    """A call of a launcher. The product of all choices would take an hour; the reason says which
    choice this one covers."""

    reason: str
    dtype: torch.dtype
    call: Callable[[], Any]


def triton(name: str) -> Callable:
    """The contract function of this name by its Triton kernels."""
    return backends.function("triton", name)


def map_of(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> torch.Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    format = formats[len(shape)] if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=format)


def _conv_passes(
    reason: str,
    dtype: torch.dtype,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    last: bool,
    stride: int = 1,
    groups: int = 1,
    tf32: bool = True,
    passes: str = "yxw",
    activation: str = "silu",
) -> Iterator[Case]:
    """Forward with a whole epilogue (y), grad input (x) and grad weight (w)."""

    axes = len(x_shape) - 2
    x, weight = map_of(x_shape, dtype, last), map_of(weight_shape, dtype, last)
    bias = torch.empty(weight_shape[0], dtype=dtype, device="meta")
    window = [stride] * axes, [weight_shape[-1] // 2] * axes, [1] * axes, groups
    y = ConvForward(x, weight, bias, None, *window, activation, 0.1).results()
    lies = ("channels last" if last else "contiguous") + ("" if tf32 else ", no TF32")
    calls = {
        "y": ("y", lambda: triton("conv_forward")(x, weight, bias, y, *window, activation, 0.1)),
        "x": ("grad x", lambda: triton("conv_grad_input")(y, weight, x_shape[2:], *window)),
        "w": ("grad w", lambda: triton("conv_grad_weight")(y, x, weight_shape[2:], *window)),
    }

    def with_flag(call: Callable[[], Any]) -> Any:
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            return call()

    for what in passes:
        name, call = calls[what]
        yield Case(f"{name}: {reason}, {lies}", dtype, lambda call=call: with_flag(call))


def conv_cases() -> Iterator[Case]:
    from pydl.kernels import conv_tiles

    # Every row of the table; bfloat16 has float16's instructions and registers, so its widest row
    # is enough.
    dtypes = {"half": HALF, "tf32": FLOAT, "float": FLOAT, "double": DOUBLE}
    for (operands, problem, lies), rows in conv_tiles.TILES.items():
        how = {"last": lies == "channels last", "tf32": operands == "tf32"}
        dtype = dtypes[operands]
        for _, n, *_ in rows if problem == "dense" else ():
            reason, shape = f"{n} channels", (8, n, 28, 28)
            yield from _conv_passes(reason, dtype, shape, (n, n, 3, 3), **how)
            if n == rows[-1][1]:
                reason += ", stride two"
                yield from _conv_passes(reason, dtype, shape, (n, n, 3, 3), **how, stride=2)
        for _, n, *_ in rows if problem == "merged" else ():
            reason, shape = f"few channels, {n} filters", (8, 3, 64, 64)
            yield from _conv_passes(
                reason, dtype, shape, (n, 3, 7, 7), **how, stride=2, passes="yw"
            )
            reason, shape = f"few filters, {n} channels", (8, n, 64, 64)
            yield from _conv_passes(reason, dtype, shape, (3, n, 5, 5), **how, stride=2, passes="x")
        if problem == "depthwise":
            for reason, taps, stride, activation in (
                ("depthwise", 3, 1, "silu"),
                ("depthwise, stride two", 3, 2, "relu"),
                ("depthwise, a loop over the taps", 7, 2, "leaky_relu"),
            ):
                yield from _conv_passes(
                    reason,
                    dtype,
                    (8, 96, 28, 28),
                    (96, 1, taps, taps),
                    **how,
                    stride=stride,
                    groups=96,
                    activation=activation,
                )
    passes = _conv_passes
    yield from passes("bfloat16", BF16, (8, 128, 28, 28), (128, 128, 3, 3), last=True)
    yield from passes("three axes", HALF, (4, 32, 8, 28, 28), (32, 32, 3, 3, 3), last=True)
    wide = (2**13, 128, 64, 64)
    yield from passes("64-bit offsets", HALF, wide, (128, 128, 3, 3), last=True, stride=2)
    yield from passes("64-bit offsets", HALF, wide, (256, 1, 3, 3), last=True, groups=128)
    wide = (2**13, 64, 64, 64)
    yield from passes("64-bit offsets", FLOAT, wide, (64, 64, 3, 3), last=False, tf32=False)
    yield from passes("64-bit offsets", FLOAT, wide, (64, 1, 3, 3), last=False, groups=64)
    yield from passes("the smallest problem", HALF, (1, 16, 2, 2), (16, 16, 1, 1), last=True)
    for dtype, last in ((HALF, True), (FLOAT, False), (DOUBLE, True)):
        y = map_of((8, 96, 28, 28), dtype, last)
        yield Case(
            f"grad bias, {'channels last' if last else 'contiguous'}",
            dtype,
            lambda y=y: triton("conv_grad_bias")(y),
        )


def bias_act_cases() -> Iterator[Case]:
    for activation, dtype, shape, last in (
        ("none", BF16, (8, 64, 56, 56), True),
        ("relu", HALF, (8, 64, 56, 56), False),
        ("leaky_relu", DOUBLE, (8, 64, 56, 56), True),
        ("silu", FLOAT, (8, 64, 56, 56), False),
        ("silu", DOUBLE, (8, 64, 56, 56), True),
        ("silu", HALF, (2**13, 64, 64, 64), True),
    ):
        x = map_of(shape, dtype, last)
        bias = torch.empty(shape[1], dtype=dtype, device="meta")
        forward = partial(triton("bias_act_forward"), x, bias, x, activation, 0.1)
        backward = partial(triton("bias_act_backward"), x, x, activation, 0.1)
        yield Case(f"y: {activation}", dtype, forward)
        yield Case(f"grad x: {activation}", dtype, backward)


def local_cases() -> Iterator[Case]:
    for dtype, stride, images in ((HALF, 1, 64), (FLOAT, 2, 64), (DOUBLE, 1, 8), (BF16, 1, 2**12)):
        x = torch.empty((images, 32, 28, 28), dtype=dtype, device="meta")
        out = (28 - 3 + 2) // stride + 1
        y = torch.empty((images, 64, out, out), dtype=dtype, device="meta")
        weight = torch.empty((64, 32 * 9, out, out), dtype=dtype, device="meta")
        bias = torch.empty((64, out, out), dtype=dtype, device="meta")
        window = [3, 3], [stride] * 2, [1, 1], [1, 1]
        reason = f"stride {stride}, {images} images"
        forward = partial(triton("local_forward"), x, weight, bias, *window)
        grad_input = partial(triton("local_grad_input"), y, weight, (28, 28), *window)
        grad_weight = partial(triton("local_grad_weight"), y, x, *window)
        yield Case(f"y: {reason}", dtype, forward)
        yield Case(f"grad x: {reason}", dtype, grad_input)
        yield Case(f"grad w: {reason}", dtype, grad_weight)


def lrn_cases() -> Iterator[Case]:
    from pydl.kernels import lrn

    def both(reason, dtype, last, size=5, beta=0.75, shape=(8, 96, 55, 55)):
        x = map_of(shape, dtype, last)
        arguments = size, 1e-4, beta, 2.0
        lies = "channels last" if last else "contiguous"
        yield Case(f"y: {reason}, {lies}", dtype, lambda: triton("lrn_forward")(x, *arguments))
        yield Case(
            f"grad x: {reason}, {lies}", dtype, lambda: triton("lrn_backward")(x, x, *arguments)
        )

    for dtype in (HALF, FLOAT, DOUBLE):
        yield from both("AlexNet's", dtype, last=True)
        yield from both("AlexNet's", dtype, last=False)
    yield from both("the widest window that is unrolled", FLOAT, last=False, size=lrn.UNROLLED_SIZE)
    for dtype in (HALF, FLOAT, DOUBLE):
        yield from both("no strips", dtype, last=True, shape=(8, 90, 55, 55))
    yield from both("no strips, 64-bit offsets", BF16, last=True, shape=(2**13, 90, 55, 55))
    yield from both("strips of the widest window", FLOAT, last=True, size=lrn.UNROLLED_SIZE)
    yield from both("strips of the widest window", DOUBLE, last=True, size=lrn.UNROLLED_SIZE)
    yield from both("a window in a loop", FLOAT, last=True, size=lrn.UNROLLED_SIZE + 1)
    yield from both("any beta", FLOAT, last=True, beta=0.6)
    yield from both("any beta", DOUBLE, last=False, beta=0.6)
    yield from both("64-bit offsets", BF16, last=True, shape=(2**13, 96, 55, 55))


def spatial_norm_cases() -> Iterator[Case]:
    def both(reason, dtype, last, size=5, beta=0.75, shape=(8, 96, 55, 55)):
        x = map_of(shape, dtype, last)
        arguments = size, 1.0, beta, 1.0
        lies = "channels last" if last else "contiguous"
        yield Case(
            f"y: {reason}, {lies}",
            dtype,
            lambda: triton("spatial_norm_forward")(x, *arguments),
        )
        yield Case(
            f"grad x: {reason}, {lies}",
            dtype,
            lambda: triton("spatial_norm_backward")(x, x, *arguments),
        )

    for dtype in (HALF, FLOAT, DOUBLE):
        for last in (False, True):
            yield from both("strips of three", dtype, last, size=3)
            yield from both("strips of five", dtype, last)
    yield from both("a loop over the taps", HALF, last=True, size=11)
    yield from both("a loop over the taps", FLOAT, last=False, size=11)
    yield from both("any beta", DOUBLE, last=False, size=3, beta=0.6)
    yield from both("a volume, 64-bit offsets", BF16, True, 3, shape=(2**10, 96, 16, 55, 55))
    yield from both("a volume", DOUBLE, False, 3, shape=(2, 96, 16, 55, 55))
    yield from both("64-bit offsets", HALF, False, 3, shape=(2**13, 96, 55, 55))


def batch_norm_cases() -> Iterator[Case]:

    def every(reason, dtype, last, activation, residual=True, affine=True, shape=(8, 64, 56, 56)):
        x = map_of(shape, dtype, last)
        sums = layout.channel_sums(x)
        weight = sums if affine else None
        added = x if residual else None
        masked = activation != "none"
        mask = empty_mask(x) if masked else None
        how = 1e-5, activation, 0.1
        lies = f"{activation}, {'channels last' if last else 'contiguous'}"
        given = x, sums, sums
        applied = weight, weight, added, *how, True
        grads = x, *given, weight, mask
        calls = {
            "y": partial(triton("batch_norm_apply"), *given, *applied),
            "grad sums": partial(triton("batch_norm_grad_sums"), *grads[:4], mask, *how),
            "grad x": partial(
                triton("batch_norm_grad_input"), *grads, sums, sums, 64.0, *how, residual
            ),
        }
        if not (residual or affine) or reason.startswith("ResNet"):
            # Statistics know nothing of what follows them, inference nothing of sums.
            calls["stats"] = partial(triton("batch_norm_stats"), x)
            running, batches = sums.to(dtype), torch.empty((), dtype=torch.int64, device="meta")
            for momentum in (0.1, None):
                moving = running, running, batches, momentum, *how, True
                kind = "training" if momentum else "training, cumulative"
                calls[kind] = partial(triton("batch_norm_train"), x, weight, weight, added, *moving)
            calls["grad x of inference"] = partial(
                triton("batch_norm_grad_input"), *grads, None, None, 1.0, *how, residual
            )
        for name, call in calls.items():
            yield Case(f"{name}: {reason}, {lies}", dtype, call)

    yield from every("ResNet's", HALF, True, "relu")
    yield from every("ResNet's", FLOAT, False, "relu")
    yield from every("float64", DOUBLE, True, "relu")
    yield from every("bfloat16", BF16, True, "leaky_relu")
    yield from every("no residual, no weight", FLOAT, False, "none", residual=False, affine=False)
    yield from every("few channels", FLOAT, True, "relu", shape=(8, 3, 56, 56))
    for last in (True, False):
        plain = last, "none", False, False, (8, 64, 5, 5)
        yield from every("one run of pixels", HALF, *plain)
    yield from every("a plane of 7 x 7", HALF, False, "relu", shape=(8, 512, 7, 7))
    yield from every("no pixels", FLOAT, False, "relu", shape=(128, 120, 1, 1))
    yield from every("64-bit offsets", HALF, True, "relu", shape=(2**13, 64, 64, 64))
    yield from every("64-bit offsets", FLOAT, False, "relu", shape=(2**13, 64, 64, 64))


def softmax_cases() -> Iterator[Case]:
    for reason, shape, dim, dtypes in (
        ("ten classes", (256, 10), 1, (HALF, FLOAT, DOUBLE)),
        ("a thousand classes", (64, 1000), 1, (BF16, FLOAT, DOUBLE)),
        ("rows of several blocks", (64, 50_000), 1, (HALF, FLOAT, DOUBLE)),
        ("pixels", (4, 21, 64, 64), 1, (HALF, FLOAT, DOUBLE)),
        ("columns of several blocks", (4, 300, 64, 64), 1, (HALF, FLOAT, DOUBLE)),
        ("64-bit offsets", (2**13, 21, 256, 256), 1, (HALF,)),
        ("rows, 64-bit offsets", (2**16, 50_000), 1, (FLOAT,)),
    ):
        for dtype in dtypes:
            x = torch.empty(shape, dtype=dtype, device="meta")
            log = dtype == FLOAT
            name = f"{reason}, {'log' if log else 'plain'}"
            yield Case(f"y: {name}", dtype, partial(triton("softmax_forward"), x, dim, log))
            backward = partial(triton("softmax_backward"), x, x, dim, log)
            yield Case(f"grad x: {name}", dtype, backward)


def cross_entropy_cases() -> Iterator[Case]:
    def both(reason, dtype, shape, soft=False, weighted=False, smoothing=0.0, reduction="mean"):
        x = torch.empty(shape, dtype=dtype, device="meta")
        target = torch.empty((shape[0], *shape[2:]), dtype=torch.int64, device="meta")
        target = x if soft else target
        weight = torch.empty(shape[1], dtype=dtype, device="meta") if weighted else None
        criterion = -100, smoothing, reduction
        forward = partial(triton("cross_entropy_forward"), x, target, weight, *criterion)
        loss, *saved = CrossEntropyForward(x, x, None, 0, 0.0, reduction).results()
        backward = partial(
            triton("cross_entropy_backward"), loss, x, target, weight, *saved, *criterion
        )
        yield Case(f"loss: {reason}", dtype, forward)
        yield Case(f"grad x: {reason}", dtype, backward)

    pixels = (4, 21, 256, 256)
    for dtype in (HALF, FLOAT, DOUBLE):
        yield from both("pixels", dtype, pixels)
        yield from both("rows", dtype, (256, 1000), weighted=True)
        yield from both("short rows", dtype, (8192, 10))
        yield from both("rows of pixels", dtype, (2**15, 150))
        yield from both("a vocabulary", dtype, (64, 50_000), smoothing=0.1)
    all_at_once = {"weighted": True, "smoothing": 0.1, "reduction": "none"}
    yield from both("pixels, smoothed", FLOAT, pixels, **all_at_once)
    yield from both("rows, probabilities", DOUBLE, (256, 1000), soft=True, **all_at_once)
    yield from both("pixels, probabilities", HALF, pixels, soft=True)
    yield from both("rows of several blocks", BF16, (64, 50_000), smoothing=0.1)
    yield from both("64-bit offsets", HALF, (2**13, 21, 256, 256), reduction="sum")


def dropout_cases() -> Iterator[Case]:
    for dtype, shape in (
        (HALF, (8, 64)),
        (BF16, (2**16, 2**16)),
        (FLOAT, (8, 64)),
        (DOUBLE, (8, 64)),
    ):
        x = torch.empty(shape, dtype=dtype, device="meta")
        seed = torch.empty((), dtype=torch.int64, device="meta")
        yield Case(f"y: {shape}", dtype, partial(triton("dropout_forward"), x, 0.5, seed))


def cases() -> Iterator[Case]:
    """Every call, family by family."""
    # Which are made of this file's.
    from cubin_cases_pool import pool_adaptive_cases, pool_cases, pool_lp_cases, unpool_cases
    from cubin_cases_rnn import rnn_cases

    for family in (
        conv_cases,
        bias_act_cases,
        local_cases,
        pool_cases,
        lrn_cases,
        spatial_norm_cases,
        batch_norm_cases,
        softmax_cases,
        cross_entropy_cases,
        dropout_cases,
        pool_lp_cases,
        pool_adaptive_cases,
        unpool_cases,
        rnn_cases,
    ):
        yield from family()
