"""Bias, residual and activation by the CPU's kernels, every instruction set, against the
definition."""

from collections.abc import Iterator

import pytest
import torch
from contract import DTYPES, INSTRUCTION_SETS, Case, gradient, hold, instruction_set, operand

from pydl import layout
from pydl.aten import bias_act as theirs
from pydl.native import bias_act, library
from pydl.reference import bias_act as definition

CPU = library("cpu")
ACTIVATIONS = (("none", 0.0), ("relu", 0.0), ("leaky_relu", 0.1), ("silu", 0.0))
CASES = (
    Case("planes", (2, 5, 7, 9)),
    Case("planes longer than every vector", (2, 3, 13, 17)),
    Case("one pixel", (3, 37, 1, 1)),
    Case("channels last", (2, 41, 5, 6), view="channels_last"),
    Case("channels last, few channels", (2, 3, 15, 16), view="channels_last"),
    Case("channels last, one channel", (2, 1, 5, 6), view="channels_last"),
    Case("several runs", (1, 2, 80, 81)),
    Case("NaN stays", (2, 5, 6, 7), values="nan"),
    Case("large values", (2, 5, 6, 7), values="large"),
    Case("a slice of a larger map", (2, 3, 9, 8), view="sliced"),
    Case("an odd storage offset", (1, 3, 9, 8), view="offset"),
    Case("an expanded gradient", (1, 3, 9, 8), view="expanded"),
    Case("an empty batch", (0, 3, 9, 8)),
    Case("one axis", (2, 5, 19)),
    Case("three axes", (2, 3, 4, 5, 6), view="channels_last"),
)


@pytest.fixture(params=INSTRUCTION_SETS, autouse=True)
def isa(request: pytest.FixtureRequest) -> Iterator[None]:
    with instruction_set(request.param):
        yield


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation, slope", ACTIVATIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_reference(case, activation, slope, dtype) -> None:
    x = operand(case, dtype, "cpu")
    bias = operand(Case("", case.shape), dtype, "cpu", (case.shape[1],), seed=2)
    residual = operand(case, dtype, "cpu", seed=3)
    for added in ((bias, residual), (bias, None), (None, residual), (None, None)):
        exact = (a if a is None else a.double() for a in added)
        y = bias_act.bias_act_forward(CPU, x, *added, activation, slope)
        hold(
            y,
            theirs.bias_act_forward(x, *added, activation, slope),
            definition.bias_act_forward(x.double(), *exact, activation, slope),
            "y",
        )
        assert layout.memory_format(y) == layout.memory_format(x)
    grad_y = gradient(case, x)
    hold(
        bias_act.bias_act_backward(CPU, grad_y, x, activation, slope),
        theirs.bias_act_backward(grad_y, x, activation, slope),
        definition.bias_act_backward(grad_y.double(), x.double(), activation, slope),
        "grad_x",
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation, slope", ACTIVATIONS)
@pytest.mark.parametrize("last", (False, True))
def test_in_place(last, activation, slope, dtype) -> None:
    case = Case("", (2, 5, 7, 9), view="channels_last" if last else "contiguous")
    x, residual = operand(case, dtype, "cpu"), operand(case, dtype, "cpu", seed=3)
    bias = operand(case, dtype, "cpu", (5,), seed=2)
    y = bias_act.bias_act_forward(CPU, x, bias, residual, activation, slope)
    CPU.call("bias_act_forward", x, bias, residual, x, activation, slope, on=x)
    assert torch.equal(x, y)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_silu_at_its_limits(dtype) -> None:
    top = torch.finfo(dtype).max
    z = torch.tensor(
        [
            0.0,
            -0.0,
            torch.inf,
            -torch.inf,
            torch.nan,
            top,
            -top,
            87,
            -87,
            -88.5,
            90,
            -90,
            -104,
            1e-8,
        ]
        * 3,
        dtype=dtype,
    )[None, :, None]
    y = bias_act.bias_act_forward(CPU, z, None, None, "silu", 0.0)
    exact = definition.bias_act_forward(z.double(), None, None, "silu", 0.0)
    torch.testing.assert_close(
        y, exact.to(dtype), rtol=4 * torch.finfo(dtype).eps, atol=1e-36, equal_nan=True
    )
    one = torch.ones_like(z)
    grad = bias_act.bias_act_backward(CPU, one, z, "silu", 0.0)
    exact = definition.bias_act_backward(one.double(), z.double(), "silu", 0.0)
    torch.testing.assert_close(
        grad, exact.to(dtype), rtol=8 * torch.finfo(dtype).eps, atol=1e-35, equal_nan=True
    )


def test_silu_to_the_last_places() -> None:
    z = torch.linspace(-80, 80, 100_001)[None, None]
    y = bias_act.bias_act_forward(CPU, z, None, None, "silu", 0.0)
    exact = definition.bias_act_forward(z.double(), None, None, "silu", 0.0)
    assert ((y - exact).abs() <= 4 * torch.finfo(torch.float32).eps * exact.abs()).all()


def test_threads_do_not_show() -> None:
    x, bias = torch.randn(3, 17, 91, 83), torch.randn(17)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = bias_act.bias_act_forward(CPU, x, bias, None, "silu", 0.0)
            results.append((y, bias_act.bias_act_backward(CPU, y, x, "silu", 0.0)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bad_input() -> None:
    x = torch.randn(2, 3, 4, 5)
    with pytest.raises(ValueError, match="expected an activation of none, relu, leaky_relu"):
        bias_act.bias_act_forward(CPU, x, None, None, "gelu", 0.0)
    with pytest.raises(ValueError, match="needs a bias of the output's dtype, a number a channel"):
        bias_act.bias_act_forward(CPU, x, torch.randn(4), None, "none", 0.0)
    with pytest.raises(ValueError, match="one dtype and shape"):
        bias_act.bias_act_forward(CPU, x, None, torch.randn(2, 3, 5, 4), "none", 0.0)
