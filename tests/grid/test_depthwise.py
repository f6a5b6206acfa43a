"""Depthwise convolution by the CPU's kernels, every instruction set: against the definition, within
PyTorch's own error."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, Case, gradient, hold, instruction_set, operand

from pydl import backends, functional, layout
from pydl.native import library

CPU = library("cpu")
ours, theirs, definition = (
    partial(backends.function, name) for name in ("cpu", "aten", "reference")
)
ONE = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}
TWO = {"stride": [2, 2], "padding": [1, 1], "dilation": [1, 1]}


def window(stride: list[int], padding: list[int], dilation: list[int]) -> dict:
    return {"stride": stride, "padding": padding, "dilation": dilation}


CASES = (
    Case("three by three", (2, 5, 13, 17), ONE, weight=(5, 1, 3, 3)),
    Case("three by three, wide", (1, 2, 6, 83), ONE, weight=(2, 1, 3, 3)),
    Case("three by three, eight wide", (1, 2, 7, 8), ONE, weight=(2, 1, 3, 3)),
    Case("three by three, seven wide", (2, 3, 7, 7), ONE, weight=(3, 1, 3, 3)),
    *(
        Case(f"three by three, {w} wide", (2, 19, 5, w), ONE, weight=(19, 1, 3, 3))
        for w in (1, 2, 3, 5, 6, 10)
    ),
    Case("small planes, several tiles of images", (45, 17, 7, 7), ONE, weight=(17, 1, 3, 3)),
    Case("small planes, stride two", (3, 35, 8, 15), TWO, weight=(35, 1, 3, 3)),
    Case(
        "small planes, three axes",
        (2, 16, 3, 4, 5),
        window([1, 1, 1], [1, 1, 1], [1, 1, 1]),
        weight=(16, 1, 3, 3, 3),
    ),
    Case("planes in several bands", (1, 2, 150, 61), ONE, weight=(2, 1, 3, 3)),
    Case("planes in several bands, stride two", (1, 2, 151, 122), TWO, weight=(2, 1, 3, 3)),
    Case("rows longer than a band", (1, 1, 3, 4500), ONE, weight=(1, 1, 3, 3)),
    Case("no padding", (2, 3, 9, 12), window([1, 1], [0, 0], [1, 1]), weight=(3, 1, 3, 3)),
    Case("five by five", (2, 3, 11, 21), window([1, 1], [2, 2], [1, 1]), weight=(3, 1, 5, 5)),
    Case("seven by seven", (1, 3, 9, 20), window([1, 1], [3, 3], [1, 1]), weight=(3, 1, 7, 7)),
    Case("one by one", (2, 4, 5, 9), window([1, 1], [0, 0], [1, 1]), weight=(4, 1, 1, 1)),
    Case("stride two, odd", (2, 5, 13, 15), TWO, weight=(5, 1, 3, 3)),
    Case("stride two, even", (2, 5, 12, 40), TWO, weight=(5, 1, 3, 3)),
    Case(
        "stride beyond the kernel",
        (1, 3, 11, 14),
        window([3, 4], [0, 1], [1, 1]),
        weight=(3, 1, 2, 2),
    ),
    Case("dilation", (1, 3, 11, 12), window([1, 1], [2, 2], [2, 2]), weight=(3, 1, 3, 3)),
    Case(
        "dilation and stride share no factor",
        (1, 3, 17, 19),
        window([2, 3], [4, 3], [3, 2]),
        weight=(3, 1, 3, 4),
    ),
    Case(
        "padding larger than half the kernel",
        (1, 3, 6, 7),
        window([1, 1], [3, 4], [1, 1]),
        weight=(3, 1, 3, 3),
    ),
    Case(
        "padding larger than the kernel, with stride",
        (1, 3, 6, 7),
        window([2, 2], [5, 4], [1, 1]),
        weight=(3, 1, 3, 3),
    ),
    Case(
        "a kernel larger than the input",
        (1, 3, 3, 2),
        window([1, 1], [3, 3], [1, 1]),
        weight=(3, 1, 6, 7),
    ),
    Case("one channel", (2, 1, 9, 10), ONE, weight=(1, 1, 3, 3)),
    Case("one pixel", (2, 9, 1, 1), ONE, weight=(9, 1, 3, 3)),
    Case("two filters a channel", (2, 3, 9, 18), ONE, weight=(6, 1, 3, 3)),
    Case("two filters a channel, stride two", (2, 3, 9, 18), TWO, weight=(6, 1, 3, 3)),
    Case("many channels", (2, 41, 6, 9), ONE, weight=(41, 1, 3, 3)),
    Case("an empty batch", (0, 3, 9, 8), ONE, weight=(3, 1, 3, 3)),
    Case("a slice of a larger map", (2, 3, 9, 8), ONE, "sliced", weight=(3, 1, 3, 3)),
    Case("an odd storage offset", (1, 3, 9, 8), ONE, "offset", weight=(3, 1, 3, 3)),
    Case("an expanded gradient", (2, 3, 9, 8), TWO, "expanded", weight=(3, 1, 3, 3)),
    Case("one axis", (2, 5, 37), window([1], [2], [1]), weight=(5, 1, 5)),
    Case("one axis, stride two", (2, 5, 37), window([2], [1], [2]), weight=(5, 1, 4)),
    Case(
        "three axes",
        (2, 3, 5, 6, 11),
        window([1, 1, 1], [1, 1, 1], [1, 1, 1]),
        weight=(3, 1, 3, 3, 3),
    ),
    Case(
        "three axes, everything differs",
        (1, 4, 7, 8, 9),
        window([2, 1, 3], [1, 0, 2], [1, 2, 1]),
        weight=(8, 1, 2, 3, 4),
    ),
)
EPILOGUES = (
    (False, False, "none", 0.0),
    (True, False, "none", 0.0),
    (True, True, "relu", 0.0),
    (False, True, "leaky_relu", 0.1),
    (True, False, "silu", 0.0),
)


@pytest.fixture(params=INSTRUCTION_SETS, autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[None]:
    with instruction_set(request.param):
        yield


def operands(case: Case, dtype: torch.dtype, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    view = "channels_last" if last else case.view
    x = operand(Case("", case.shape, view=view), dtype, "cpu")
    return x, operand(Case("", case.shape), dtype, "cpu", case.weight, seed=2)


def plainly(function, *arguments):
    """PyTorch's result, or None where its own kernel cannot serve."""
    try:
        return function(*arguments)
    except (RuntimeError, NotImplementedError):
        return None


def layouts(case: Case) -> tuple[bool, ...]:
    return (False, True) if len(case.shape) > 3 and case.view == "contiguous" else (False,)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_reference(case: Case, dtype: torch.dtype) -> None:
    rest = tuple(case.arguments.values())
    groups = case.shape[1]
    for last in layouts(case):
        x, weight = operands(case, dtype, last)
        plain = (*rest, groups, "none", 0.0)
        y = ours("conv_forward")(x, weight, None, None, *plain)
        assert layout.memory_format(y) == layout.memory_format(x) or x.shape[1] == 1
        hold(
            y,
            plainly(theirs("conv_forward"), x, weight, None, None, *plain),
            definition("conv_forward")(x.double(), weight.double(), None, None, *plain),
            f"y, channels_last={last}",
        )
        grad_y = gradient(Case("", case.shape, view=case.view), y)
        if last:
            grad_y = grad_y.contiguous(memory_format=layout.memory_format(x))
        window = (*rest, groups)
        size = x.shape[2:]
        hold(
            ours("conv_grad_input")(grad_y, weight, size, *window),
            plainly(theirs("conv_grad_input"), grad_y, weight, size, *window),
            definition("conv_grad_input")(grad_y.double(), weight.double(), size, *window),
            f"grad_x, channels_last={last}",
        )
        kernel = weight.shape[2:]
        hold(
            ours("conv_grad_weight")(grad_y, x, kernel, *window),
            plainly(theirs("conv_grad_weight"), grad_y, x, kernel, *window),
            definition("conv_grad_weight")(grad_y.double(), x.double(), kernel, *window),
            f"grad_weight, channels_last={last}",
        )
        hold(
            ours("conv_grad_bias")(grad_y),
            theirs("conv_grad_bias")(grad_y),
            definition("conv_grad_bias")(grad_y.double()),
            f"grad_bias, channels_last={last}",
        )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES, ids=str)
@pytest.mark.parametrize(
    "shape, stride, filters",
    (
        ((2, 5, 9, 20), 1, 5),  # rows share what they read
        ((2, 5, 7, 6), 1, 10),  # flat planes
        ((2, 17, 9, 12), 2, 17),
        ((2, 18, 7, 8), 1, 18),  # turned
    ),
)
def test_epilogue(shape, stride, filters, epilogue, dtype) -> None:
    with_bias, with_residual, activation, slope = epilogue
    for last in (False, True):
        case = Case("", shape, view="channels_last" if last else "contiguous")
        x = operand(case, dtype, "cpu")
        weight = operand(case, dtype, "cpu", (filters, 1, 3, 3), seed=2).contiguous()
        bias = operand(case, dtype, "cpu", (filters,), seed=3) if with_bias else None
        window = ([stride] * 2, [1, 1], [1, 1], shape[1])
        out = [(n - 1) // stride + 1 for n in shape[2:]]
        residual = (
            operand(case, dtype, "cpu", (shape[0], filters, *out), seed=4)
            if with_residual
            else None
        )
        arguments = x, weight, bias, residual
        exact = (a if a is None else a.double() for a in arguments)
        hold(
            ours("conv_forward")(*arguments, *window, activation, slope),
            theirs("conv_forward")(*arguments, *window, activation, slope),
            definition("conv_forward")(*exact, *window, activation, slope),
            f"y, channels_last={last}",
        )


@pytest.mark.parametrize(
    "case",
    (
        Case("bands and rows", (2, 33, 90, 61), ONE, weight=(33, 1, 3, 3)),
        Case("stride two", (2, 33, 91, 61), TWO, weight=(33, 1, 3, 3)),
        Case("two filters a channel", (2, 17, 90, 61), TWO, weight=(34, 1, 3, 3)),
        Case("small planes", (40, 69, 7, 7), ONE, weight=(69, 1, 3, 3)),
    ),
    ids=str,
)
def test_threads_do_not_show(case: Case) -> None:
    rest = (*case.arguments.values(), case.shape[1])
    before = torch.get_num_threads()
    for last in (False, True):
        x, weight = operands(case, torch.float32, last)
        results = []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                y = ours("conv_forward")(x, weight, None, None, *rest, "relu", 0.0)
                results.append(
                    (
                        y,
                        ours("conv_grad_input")(y, weight, x.shape[2:], *rest),
                        ours("conv_grad_weight")(y, x, weight.shape[2:], *rest),
                        ours("conv_grad_bias")(y),
                    )
                )
        finally:
            torch.set_num_threads(before)
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
def test_results_past_the_caches(dtype: torch.dtype) -> None:
    """Results of 16 MB and more are streamed, where channels fill lines of the cache and where they
    do not, by one thread and by two: the same bits as those of two halves, which are not."""
    before = torch.get_num_threads()
    try:
        for channels, threads in ((64, 1), (64, 2), (65, 2)):
            torch.set_num_threads(threads)
            size = (1, channels, 259, (16 << 20) // dtype.itemsize // channels // 256)
            x = torch.randn(size).to(dtype, memory_format=torch.channels_last)
            assert x.numel() * x.itemsize >= 16 << 20
            weight = torch.randn(channels, 1, 3, 3).to(dtype)
            window = ([1, 1], [1, 1], [1, 1], channels)

            def passes(x, weight=weight, window=window):
                y = ours("conv_forward")(x, weight, None, None, *window, "none", 0.0)
                return y, ours("conv_grad_input")(x, weight, x.shape[2:], *window)

            halves = zip(passes(x[:, :, :131]), passes(x[:, :, 129:]), strict=True)
            for whole, (top, bottom) in zip(passes(x), halves, strict=True):
                assert torch.equal(whole, torch.cat((top[:, :, :130], bottom[:, :, 1:]), 2))
    finally:
        torch.set_num_threads(before)


def test_dense_weights_are_refused() -> None:
    x, weight = torch.randn(1, 4, 5, 5), torch.randn(4, 2, 3, 3)
    with pytest.raises(ValueError, match=r"depthwise weights only.*4 channels, 2 groups"):
        window = [1, 1], [1, 1], [1, 1], 2
        CPU.call("conv_forward", x, weight, None, None, x, *window, "none", 0.0, False, on=x)


@pytest.mark.parametrize(
    ("call", "padding"), ((functional.conv2d, 2), (functional.conv_transpose2d, 0))
)
def test_input_without_positions(call, padding) -> None:
    x, weight = torch.randn(2, 4, 5, 0), torch.randn(4, 1, 3, 3)
    with pytest.raises(RuntimeError, match=r"Only zero batch .* \[2, 4, 5, 0\]"):
        call(x, weight, padding=padding, groups=4, backend="cpu")
