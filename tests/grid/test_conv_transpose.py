"""Transposed convolution: every backend against PyTorch in float64, by the yardstick."""

import pytest
import torch
from contract import Case, gradient, hold, operand, run, servers
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import functional, nn

CASES = (
    Case("the decoder's 2x2 stride 2", (2, 6, 5, 4), {"stride": 2}, weight=(6, 3, 2, 2)),
    Case(
        "an output padding on one side",
        (1, 4, 5, 3),
        {"stride": (3, 2), "padding": 1, "output_padding": (2, 1)},
        weight=(4, 2, 3, 3),
    ),
    Case(
        "an output padding beyond the stride, as dilation allows",
        (1, 3, 4, 5),
        {"dilation": 3, "output_padding": 2},
        weight=(3, 2, 2, 2),
    ),
    Case("groups", (2, 6, 4, 3), {"stride": 2, "padding": 1, "groups": 3}, weight=(6, 2, 3, 3)),
    Case("depthwise", (1, 5, 4, 6), {"stride": 2, "groups": 5}, weight=(5, 1, 3, 3)),
    Case(
        "depthwise, an output padding beyond the stride",
        (1, 5, 4, 6),
        {"stride": 2, "groups": 5, "dilation": 4, "output_padding": 3},
        weight=(5, 1, 2, 3),
    ),
    Case("taps that no output sees", (1, 2, 3, 3), {"stride": 4}, weight=(2, 3, 2, 2)),
    Case("padding takes from the result", (1, 2, 4, 4), {"padding": 2}, weight=(2, 3, 3, 3)),
    Case("channels last", (2, 9, 4, 5), {"stride": 2}, "channels_last", weight=(9, 5, 3, 3)),
    Case("a slice of a larger map", (2, 3, 4, 5), {"stride": 2}, "sliced", weight=(3, 4, 3, 3)),
    Case("an expanded gradient", (2, 3, 4, 5), {"stride": 2}, "expanded", weight=(3, 4, 3, 3)),
    Case("an empty batch", (0, 3, 4, 5), {"stride": 2}, weight=(3, 4, 3, 3)),
    Case("unbatched", (3, 4, 5), {"stride": 2}, weight=(3, 4, 3, 3)),
    Case("one axis", (2, 4, 7), {"stride": 2, "output_padding": 1}, weight=(4, 3, 3)),
    Case(
        "three axes", (1, 3, 3, 4, 2), {"stride": (1, 2, 2), "padding": 1}, weight=(3, 2, 3, 3, 3)
    ),
)


def _all(case, operands, library, **more):
    axes = len(case.weight) - 2
    function = getattr(library, f"conv_transpose{axes}d")
    return run(
        lambda x, weight, bias: function(x, weight, bias, **case.arguments, **more),
        operands,
        lambda y: gradient(case, y),
    )


def _operands(case, dtype, device):
    features = case.weight[1] * case.arguments.get("groups", 1)
    return [
        operand(case, dtype, device),
        operand(case, dtype, device, case.weight, seed=2),
        operand(case, dtype, device, (features,), seed=3),
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", (torch.float64, torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("depthwise"))
def test_against_pytorch_in_float64(server, case, dtype):
    if server[0] == "cpu" and case.weight[1] > 1:
        pytest.skip("dense convolution on a CPU is PyTorch's own")
    backend, device = server
    operands = _operands(case, dtype, device)
    ours = _all(case, operands, functional, backend=backend)
    theirs = _all(case, operands, torch.nn.functional)
    exact = _all(case, [o.double() for o in operands], torch.nn.functional)
    for what, *three in zip(
        ("y", "grad_x", "grad_weight", "grad_bias"), ours, theirs, exact, strict=True
    ):
        hold(*three, what)


@pytest.mark.parametrize("server", servers("conv"))
@pytest.mark.parametrize("output_padding", (0, 1))
def test_derivatives(server, output_padding):
    """Also where the result's last rows hang over: dilation 3, stride 1 and an output padding."""
    backend, device = server
    shapes = (1, 4, 3, 4), (4, 2, 2, 2), (4,)
    operands = [
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in shapes
    ]

    def function(x, weight, bias):
        return functional.conv_transpose2d(
            x, weight, bias, 1, 1, output_padding, 2, 3, backend=backend
        )

    torch.autograd.gradcheck(function, operands, fast_mode=True)
    torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    output_padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
)
@pytest.mark.parametrize("server", [s for s in servers("conv") if s.values[0][0] != "aten"])
def test_any_window(server, size, kernel, stride, padding, output_padding, dilation, groups):
    """Either both compute the same or both refuse; an empty map, which PyTorch's CPU gives for some
    windows and refuses for others, is always refused."""
    backend, device = server
    x = torch.randn(2, 4, *size, device=device)
    weight = torch.randn(4, 3, *kernel, device=device)
    arguments = stride, padding, output_padding, groups, dilation
    try:
        expected = torch.nn.functional.conv_transpose2d(x, weight, None, *arguments)
        refused = expected.numel() == 0
    except RuntimeError:
        refused = True
    if refused:
        with pytest.raises(RuntimeError):
            functional.conv_transpose2d(x, weight, None, *arguments, backend=backend)
        return
    y = functional.conv_transpose2d(x, weight, None, *arguments, backend=backend)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("server", servers("conv"))
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_padding": 1}, "output padding must be smaller"),
        ({"stride": 0}, "stride"),
        ({"padding": 4}, "Output size is too small|too small"),
        ({"groups": 3}, "channels|groups"),
    ],
)
def test_bad_input(server, arguments, message):
    backend, device = server
    x, weight = torch.randn(1, 4, 3, 3, device=device), torch.randn(4, 2, 3, 3, device=device)
    with pytest.raises(RuntimeError, match=message):
        functional.conv_transpose2d(x, weight, **arguments, backend=backend)


@pytest.mark.parametrize("server", servers("conv"))
def test_input_without_positions(server):
    backend, device = server
    x, weight = torch.randn(2, 4, 3, 0, device=device), torch.randn(4, 2, 3, 3, device=device)
    with pytest.raises(RuntimeError, match="Only zero batch or zero channel inputs"):
        functional.conv_transpose2d(x, weight, backend=backend)


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_the_module_takes_an_output_size(axes):
    theirs = getattr(torch.nn, f"ConvTranspose{axes}d")(3, 4, 3, stride=2)
    ours = getattr(nn, f"ConvTranspose{axes}d")(3, 4, 3, stride=2, backend="reference")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, *[4] * axes)
    for size in ([9] * axes, [10] * axes):
        torch.testing.assert_close(ours(x, output_size=size), theirs(x, output_size=size))
