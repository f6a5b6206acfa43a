"""Locally connected layers: every backend against the reference, the reference against PyTorch's
parts."""

import pytest
import torch
from contract import (
    DTYPES,
    INSTRUCTION_SETS,
    Case,
    gradient,
    hold,
    instruction_set,
    opcheck,
    operand,
    run,
    servers,
)

from pydl import backends, functional
from pydl.ops.local import locally_connected
from pydl.shapes import conv_size

# The arguments are the kernel's size and the window; ``weight`` is the number of filters.
CASES = (
    Case("three by three", (2, 3, 6, 5), {"kernel_size": (3, 3), "padding": 1}, weight=(4,)),
    Case("stride two, odd sizes", (2, 2, 7, 6), {"kernel_size": (3, 3), "stride": 2}, weight=(3,)),
    Case(
        "stride beyond the kernel",
        (1, 2, 8, 7),
        {"kernel_size": (2, 1), "stride": 3, "padding": (0, 1)},
        weight=(2,),
    ),
    Case(
        "dilation shares a factor with stride",
        (1, 2, 9, 8),
        {"kernel_size": (3, 2), "stride": (4, 1), "padding": (2, 0), "dilation": (2, 3)},
        weight=(2,),
    ),
    Case("one axis", (3, 2, 9), {"kernel_size": (3,), "stride": 2, "padding": 1}, weight=(5,)),
    Case(
        "three axes",
        (1, 2, 4, 5, 4),
        {
            "kernel_size": (2, 3, 2),
            "stride": (1, 2, 1),
            "padding": (1, 1, 0),
            "dilation": (2, 1, 1),
        },
        weight=(3,),
    ),
    Case("four hundred terms a sum", (2, 16, 7, 8), {"kernel_size": (5, 5)}, weight=(3,)),
    Case("more than a tile of each", (9, 2, 9, 21), {"kernel_size": (1, 2)}, weight=(9,)),
    Case(
        "a padding as large as the map",
        (1, 1, 2, 2),
        {"kernel_size": (3, 3), "padding": 2},
        weight=(2,),
    ),
    Case("a slice of a larger map", (2, 3, 5, 5), {"kernel_size": (2, 2)}, "sliced", weight=(2,)),
    Case("channels last", (2, 3, 5, 5), {"kernel_size": (2, 2)}, "channels_last", weight=(2,)),
    Case("an expanded gradient", (2, 3, 5, 5), {"kernel_size": (2, 2)}, "expanded", weight=(2,)),
    Case("an empty batch", (0, 3, 5, 5), {"kernel_size": (3, 3), "padding": 1}, weight=(2,)),
    Case("unbatched", (3, 5, 5), {"kernel_size": (2, 2)}, weight=(2,)),
)


def _operands(case: Case, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    kernel = case.arguments["kernel_size"]
    axes = len(kernel)
    window = [
        [value] * axes if isinstance(value, int) else value
        for value in (case.arguments.get(key, default) for key, default in _WINDOW.items())
    ]
    out = conv_size(case.shape[-axes:], kernel, *window)
    channels, (features,) = case.shape[-axes - 1], case.weight
    # Contiguous as parameters are; how a map lies is the case's.
    plain = Case(case.reason, case.shape)
    return [
        operand(case, dtype, device),
        operand(plain, dtype, device, (features, channels, *kernel, *out), seed=2),
        operand(plain, dtype, device, (features, *out), seed=3),
    ]


_WINDOW = {"stride": 1, "padding": 0, "dilation": 1}


def _all(case: Case, operands: list[torch.Tensor], backend: str) -> list[torch.Tensor]:
    window = [case.arguments.get(key, default) for key, default in _WINDOW.items()]
    axes = len(case.arguments["kernel_size"])
    return run(
        lambda x, weight, bias: locally_connected(axes, x, weight, bias, *window, backend),
        operands,
        lambda y: gradient(case, y),
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("local"))
def test_against_reference(server, case, dtype):
    backend, device = server
    operands = _operands(case, dtype, device)
    exact = _all(case, [o.double() for o in operands], "reference")
    names = ("y", "grad_x", "grad_weight", "grad_bias")
    three = _all(case, operands, backend), _all(case, operands, "aten"), exact
    for what, *values in zip(names, *three, strict=True):
        hold(*values, what)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_pytorchs_parts_in_float64(case):
    operands = _operands(case, torch.float64, "cpu")
    both = _all(case, operands, "reference"), _all(case, operands, "aten")
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_instruction_set(isa, case):
    with instruction_set(isa):
        for dtype in DTYPES:
            test_against_reference(("cpu", "cpu"), case, dtype)


@pytest.mark.parametrize("server", servers("local"))
def test_without_bias(server):
    backend, device = server
    x, weight = torch.randn(2, 3, 7, device=device), torch.randn(4, 3, 2, 6, device=device)
    y = functional.locally_connected1d(x, weight, backend=backend)
    expected = functional.locally_connected1d(x, weight, torch.zeros(4, 6), backend="reference")
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("server", servers("local"))
def test_derivatives(server):
    backend, device = server
    shapes = (2, 2, 4, 3), (3, 2, 2, 2, 2, 4), (3, 2, 4)
    operands = [
        torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in shapes
    ]

    def function(x, weight, bias):
        return functional.locally_connected2d(x, weight, bias, (2, 1), (0, 1), 1, backend=backend)

    torch.autograd.gradcheck(function, operands, fast_mode=True)
    torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@pytest.mark.parametrize("server", servers("local"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    ops, window = torch.ops.pydl, ([2, 2], [1, 2], [0, 1], [1, 1], backend)
    x, weight = torch.randn(2, 3, 5, 6, device=device), torch.randn(4, 12, 4, 4, device=device)
    bias, grad_y = torch.randn(4, 4, 4, device=device), torch.randn(2, 4, 4, 4, device=device)
    opcheck(ops.local_forward.default, (x, weight, bias, *window))
    opcheck(ops.local_grad_input.default, (grad_y, weight, [5, 6], *window))
    opcheck(ops.local_grad_weight.default, (grad_y, x, *window))


@pytest.mark.parametrize("server", servers("local"))
@pytest.mark.parametrize(
    ("x", "weight", "bias", "message"),
    [
        ((1, 3, 5, 5), (2, 3, 2, 2), None, "weight should have 6 dimensions"),
        ((1, 3, 5, 5), (2, 4, 2, 2, 4, 4), None, "serves input with 4 channels"),
        ((1, 3, 5, 5), (2, 3, 2, 2, 3, 3), None, "filters for"),
        ((1, 3, 5, 5), (2, 3, 2, 2, 4, 4), (2,), "expected bias of size"),
        ((3, 5), (2, 3, 2, 2, 4, 4), None, "Expected 3D"),
    ],
)
def test_bad_input(server, x, weight, bias, message):
    backend, device = server
    operands = [None if s is None else torch.randn(s, device=device) for s in (x, weight, bias)]
    with pytest.raises(RuntimeError, match=message):
        functional.locally_connected2d(*operands, backend=backend)


@pytest.mark.native
def test_the_extension_checks_shapes_itself():
    if backends.BACKENDS["cuda"].missing is not None:
        pytest.skip(backends.BACKENDS["cuda"].missing)
    from pydl import native

    library, device = native.library("cuda"), backends.BACKENDS["cuda"].devices[0]
    x, y = torch.randn(1, 2, 5, device=device), torch.empty(1, 3, 4, device=device)
    window = (2,), (1,), (0,), (1,)
    for weight, message in (((3, 5, 4), "expects 4 weights a filter, got 5"), ((3, 4, 3), "for 3")):
        with pytest.raises(ValueError, match=message):
            operands = x, torch.randn(weight, device=device), None, y
            library.call("local_forward", *operands, *window, on=x)


@pytest.mark.parametrize(
    "server", [server for server in servers("local") if server.values[0][0] in ("cpu", "cuda")]
)
def test_no_filters_have_no_gradient(server):
    """The operator refuses a layer without filters; the extension has nothing to write."""
    backend, device = server
    x, grad_y = torch.randn(2, 3, 5, 5, device=device), torch.empty(2, 0, 4, 4, device=device)
    gradient = backends.function(backend, "local_grad_weight")
    assert gradient(grad_y, x, (2, 2), (1, 1), (0, 0), (1, 1)).numel() == 0
