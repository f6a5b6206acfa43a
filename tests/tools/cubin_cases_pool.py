"""What test_cubins compiles of pooling and unpooling."""

from collections.abc import Iterator
from functools import partial

import torch
from cubin_cases import BF16, DOUBLE, FLOAT, HALF, Case, map_of, triton

from pydl import layout
from pydl.contract.pool_adaptive import PyramidPoolForward


def pool_cases() -> Iterator[Case]:

    def max_pool(reason, dtype, shape, kernel, stride, index, last):
        x, axes = map_of(shape, dtype, last), len(shape) - 2
        window = [kernel] * axes, [stride] * axes, [kernel // 2] * axes, [1] * axes
        out = [(n + 2 * (kernel // 2) - kernel) // stride + 1 for n in shape[2:]]
        y = layout.resized(x, out)
        indices = layout.resized(x, out, dtype=torch.int64 if index == "flat" else torch.uint8)
        lies = f"{index} index, {'channels last' if last else 'contiguous'}"
        yield Case(
            f"max y: {reason}, {lies}",
            dtype,
            lambda: triton("max_pool_forward")(x, *window, out, index),
        )
        if index != "none":
            yield Case(
                f"max grad x: {reason}, {lies}",
                dtype,
                lambda: triton("max_pool_backward")(y, indices, shape[2:], *window),
            )

    def avg_pool(reason, dtype, shape, kernel, stride, last, divide=(True, 0)):
        x, axes = map_of(shape, dtype, last), len(shape) - 2
        window = [kernel] * axes, [stride] * axes, [0] * axes
        out = [(n - kernel) // stride + 1 for n in shape[2:]]
        y = layout.resized(x, out)
        lies = "channels last" if last else "contiguous"
        yield Case(
            f"avg y: {reason}, {lies}",
            dtype,
            lambda: triton("avg_pool_forward")(x, *window, out, *divide),
        )
        yield Case(
            f"avg grad x: {reason}, {lies}",
            dtype,
            lambda: triton("avg_pool_backward")(y, shape[2:], *window, *divide, last),
        )

    plane = (8, 64, 56, 56)
    for dtype in (HALF, FLOAT):  # all that is unrolled, in both layouts
        yield from max_pool("3 x 3, stride 2", dtype, plane, 3, 2, "offset", last=True)
        yield from max_pool("3 x 3, stride 2", dtype, plane, 3, 2, "offset", last=False)
        yield from avg_pool("2 x 2, stride 2", dtype, plane, 2, 2, last=True)
        yield from avg_pool("2 x 2, stride 2", dtype, plane, 2, 2, last=False, divide=(False, 0))
    yield from max_pool("inference", BF16, plane, 2, 2, "none", last=False)
    yield from max_pool("PyTorch's index", FLOAT, plane, 2, 2, "flat", last=False)
    yield from max_pool("PyTorch's index", DOUBLE, plane, 3, 2, "flat", last=True)
    yield from max_pool("a loop over the taps", FLOAT, plane, 13, 1, "offset", last=False)
    yield from max_pool("three axes", HALF, (2, 32, 8, 28, 28), 3, 2, "offset", last=True)
    yield from max_pool("64-bit offsets", HALF, (2**13, 64, 64, 64), 3, 2, "offset", last=True)
    yield from avg_pool("a loop over the taps", FLOAT, (8, 64, 7, 7), 7, 1, last=True)
    yield from avg_pool("a divisor", DOUBLE, plane, 3, 2, last=False, divide=(True, 5))
    yield from avg_pool("64-bit offsets", FLOAT, (2**13, 64, 64, 64), 2, 2, last=False)


def pool_lp_cases() -> Iterator[Case]:

    def both(reason, dtype, shape, norm_type, kernel, last):
        x, axes = map_of(shape, dtype, last), len(shape) - 2
        window = norm_type, [kernel] * axes, [2] * axes
        out = [(n - kernel) // 2 + 1 for n in shape[2:]]
        y = layout.resized(x, out)
        lies = "channels last" if last else "contiguous"
        yield Case(
            f"Lp y: {reason}, {lies}", dtype, lambda: triton("lp_pool_forward")(x, *window, out)
        )
        yield Case(
            f"Lp grad x: {reason}, {lies}",
            dtype,
            lambda: triton("lp_pool_backward")(y, x, y, *window),
        )

    plane = (8, 64, 56, 56)
    for dtype in (HALF, FLOAT, DOUBLE):
        yield from both("L2", dtype, plane, 2.0, 3, last=True)
        yield from both("L2", dtype, plane, 2.0, 3, last=False)
    yield from both("L1", BF16, plane, 1.0, 2, last=False)
    yield from both("a whole power", FLOAT, plane, 3.0, 2, last=True)
    yield from both("a large whole power", FLOAT, plane, 11.0, 2, last=False)
    yield from both("any power", HALF, plane, 2.5, 2, last=True)
    yield from both("three axes", FLOAT, (2, 32, 8, 28, 28), 2.0, 2, last=True)
    yield from both("64-bit offsets", HALF, (2**13, 64, 64, 64), 2.0, 2, last=True)


def pool_adaptive_cases() -> Iterator[Case]:

    def adaptive(reason, dtype, shape, bins, index, last):
        x, out = map_of(shape, dtype, last), [bins] * (len(shape) - 2)
        y = layout.resized(x, out)
        indices = layout.resized(x, out, dtype=torch.int64 if index == "flat" else torch.uint8)
        lies = f"{index} index, {'channels last' if last else 'contiguous'}"
        size = shape[2:]
        yield Case(
            f"adaptive max y: {reason}, {lies}",
            dtype,
            lambda: triton("adaptive_max_pool_forward")(x, out, index),
        )
        if index != "none":
            yield Case(
                f"adaptive max grad x: {reason}, {lies}",
                dtype,
                lambda: triton("adaptive_max_pool_backward")(y, indices, size),
            )
        yield Case(
            f"adaptive avg y: {reason}, {lies}",
            dtype,
            lambda: triton("adaptive_avg_pool_forward")(x, out),
        )
        yield Case(
            f"adaptive avg grad x: {reason}, {lies}",
            dtype,
            lambda: triton("adaptive_avg_pool_backward")(y, size, last),
        )

    def pyramid(reason, dtype, shape, levels, index, last):
        x, flat = map_of(shape, dtype, last), [bins for level in levels for bins in (level, level)]
        kind = "average" if index == "none" else "max"
        y, indices = PyramidPoolForward(x, flat, kind, index).results()
        lies = f"{kind}, {index} index, {'channels last' if last else 'contiguous'}"
        yield Case(
            f"pyramid y: {reason}, {lies}",
            dtype,
            lambda: triton("pyramid_pool_forward")(x, flat, kind, index),
        )
        yield Case(
            f"pyramid grad x: {reason}, {lies}",
            dtype,
            lambda: triton("pyramid_pool_backward")(y, indices, shape[1:], flat, kind, last),
        )

    map13 = (8, 256, 13, 13)
    for dtype in (HALF, FLOAT):
        yield from adaptive("13 to 7", dtype, map13, 7, "offset", last=True)
        yield from adaptive("13 to 7", dtype, map13, 7, "offset", last=False)
        yield from pyramid("SPP-net's", dtype, map13, (1, 2, 3, 6), "offset", last=True)
        yield from pyramid("SPP-net's", dtype, map13, (4, 2, 1), "offset", last=False)
    yield from adaptive("PyTorch's index", DOUBLE, map13, 5, "flat", last=True)
    yield from adaptive("more bins than elements", BF16, (8, 64, 5, 5), 7, "offset", last=False)
    yield from adaptive("three axes", FLOAT, (2, 32, 8, 13, 13), 5, "offset", last=True)
    yield from adaptive("64-bit offsets", HALF, (2**13, 64, 65, 65), 9, "none", last=True)
    yield from pyramid("more bins than elements", HALF, (8, 64, 5, 5), (6, 1), "offset", last=False)
    yield from pyramid("more levels than most", FLOAT, map13, (1, 2, 3, 4, 6), "offset", last=True)
    yield from pyramid("averages", FLOAT, map13, (1, 2, 3, 6), "none", last=False)
    yield from pyramid("large bins", DOUBLE, (8, 64, 56, 56), (1, 2), "flat", last=False)


def unpool_cases() -> Iterator[Case]:
    for reason, dtype, shape, last in (
        ("SegNet's", HALF, (8, 64, 28, 28), True),
        ("SegNet's", FLOAT, (8, 64, 28, 28), False),
        ("three axes", DOUBLE, (2, 32, 4, 14, 14), True),
        ("64-bit offsets", BF16, (2**13, 64, 64, 64), True),
    ):
        x, size = map_of(shape, dtype, last), [2 * n for n in shape[2:]]
        index, y = map_of(shape, torch.int64, last), layout.resized(x, size)
        lies = "channels last" if last else "contiguous"
        forward = partial(triton("max_unpool_forward"), x, index, size)
        yield Case(f"unpool y: {reason}, {lies}", dtype, forward)
        backward = partial(triton("max_unpool_backward"), y, index)
        yield Case(f"unpool grad x: {reason}, {lies}", dtype, backward)
