"""Locally connected layers by the CPU's kernels, every instruction set, against the definition; and
the definition against unfolding."""

from collections.abc import Iterator

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, Case, gradient, hold, instruction_set, operand

from pydl.aten import local as theirs
from pydl.native import library, local
from pydl.reference import local as definition

CPU = library("cpu")


def case(reason, shape, filters, kernel, stride=None, padding=None, dilation=None, **rest) -> Case:
    axes = len(kernel)
    window = {
        "kernel_size": list(kernel),
        "stride": list(stride or [1] * axes),
        "padding": list(padding or [0] * axes),
        "dilation": list(dilation or [1] * axes),
    }
    return Case(reason, shape, {"filters": filters, **window}, **rest)


CASES = (
    case("the usual layer", (2, 3, 9, 10), 4, (3, 3), padding=(1, 1)),
    case("more images than go together", (19, 2, 5, 6), 3, (3, 3), padding=(1, 1)),
    case("several blocks of positions", (2, 2, 17, 19), 3, (3, 3), padding=(1, 1)),
    case("a whole block of positions", (2, 2, 8, 8), 3, (3, 3), padding=(1, 1)),
    case("stride beyond the kernel", (2, 3, 11, 12), 2, (2, 2), (3, 4)),
    case("dilation", (1, 3, 11, 12), 2, (3, 2), (2, 1), (2, 1), (2, 3)),
    case("padding larger than half the kernel", (1, 2, 5, 4), 2, (3, 3), padding=(2, 3)),
    case("padding larger than the kernel", (1, 2, 5, 4), 2, (2, 2), padding=(3, 3)),
    case("a kernel larger than the input", (1, 2, 3, 2), 2, (5, 4), padding=(2, 2)),
    case("one channel, one filter", (2, 1, 6, 7), 1, (3, 3)),
    case("one position", (3, 4, 5, 5), 6, (5, 5)),
    case("an empty batch", (0, 2, 6, 7), 3, (3, 3)),
    case("a slice of a larger map", (2, 2, 6, 7), 3, (3, 3), view="sliced"),
    case("channels last is copied", (2, 2, 6, 7), 3, (3, 3), view="channels_last"),
    case("an odd storage offset", (2, 2, 6, 7), 3, (3, 3), view="offset"),
    case("an expanded gradient", (2, 2, 6, 7), 3, (3, 3), view="expanded"),
    case("one axis", (2, 3, 37), 4, (5,), (2,), (2,)),
    case("three axes", (2, 2, 4, 5, 6), 3, (2, 3, 2), (1, 2, 1), (1, 0, 1)),
)


def tensors(case: Case, dtype: torch.dtype) -> tuple[tuple[torch.Tensor, ...], tuple]:
    """x, weight, bias and grad_y; and the window."""
    filters, *window = case.arguments.values()
    kernel, stride, padding, dilation = window
    x = operand(case, dtype, "cpu")
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    plain = Case("", case.shape)
    rows = x.shape[1] * torch.Size(kernel).numel()
    weight = operand(plain, dtype, "cpu", (filters, rows, *out), seed=2)
    bias = operand(plain, dtype, "cpu", (filters, *out), seed=3)
    grad_y = gradient(case, x.new_empty(x.shape[0], filters, *out))
    return (x, weight, bias, grad_y), tuple(window)


def results(module, x, weight, bias, grad_y, window, *, on=()) -> dict[str, torch.Tensor]:
    return {
        "y": module.local_forward(*on, x, weight, bias, *window),
        "y without a bias": module.local_forward(*on, x, weight, None, *window),
        "grad_x": module.local_grad_input(*on, grad_y, weight, x.shape[2:], *window),
        "grad_weight": module.local_grad_weight(*on, grad_y, x, *window),
    }


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_reference(case: Case, dtype: torch.dtype, isa: str) -> None:
    operands, window = tensors(case, dtype)
    with instruction_set(isa):
        ours = results(local, *operands, window, on=(CPU,))
    try:
        other = results(theirs, *operands, window)
    except (NotImplementedError, RuntimeError):  # three axes; no images
        other = dict.fromkeys(ours)
    exact = results(definition, *(o.double() for o in operands), window)
    for what, y in ours.items():
        assert y.is_contiguous()
        hold(y, other[what], exact[what], what)


@pytest.mark.parametrize("case", [c for c in CASES if c.shape[0] > 0 and len(c.shape) < 5], ids=str)
def test_reference_is_unfolding_in_float64(case: Case) -> None:
    operands, window = tensors(case, torch.float64)
    exact, other = (results(module, *operands, window) for module in (definition, theirs))
    for what, y in exact.items():
        torch.testing.assert_close(y, other[what], rtol=1e-12, atol=1e-12)


def test_unfolding_has_no_third_axis() -> None:
    operands, window = tensors(CASES[-1], torch.float32)
    with pytest.raises(NotImplementedError, match="one or two axes"):
        theirs.local_forward(*operands[:3], *window)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_threads_do_not_show(isa: str, threads: None) -> None:
    large = case("large", (5, 5, 21, 22), 9, (3, 3), padding=(1, 1))
    operands, window = tensors(large, torch.float32)
    each = []
    with instruction_set(isa):
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            each.append(results(local, *operands, window, on=(CPU,)))
    for other in each[1:]:
        assert all(torch.equal(each[0][what], other[what]) for what in other)


def test_bad_input() -> None:
    (x, weight, bias, _), window = tensors(CASES[0], torch.float32)
    with pytest.raises(ValueError, match=r"needs a weight .* that fits"):
        local.local_forward(CPU, x, weight[:, :-1], bias, *window)
    with pytest.raises(ValueError, match="one dtype and batch size"):
        local.local_forward(CPU, x, weight.double(), bias, *window)
    with pytest.raises(ValueError, match="does not give"):
        local.local_forward(CPU, x[..., :-1], weight, bias, *window)
