"""Power-average pooling: every backend against the reference, and the reference against PyTorch and
by hand."""

import math

import pytest
import torch
from contract import DTYPES, Case, gradient, hold, opcheck, operand, run, run_pytorch, servers
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional

L2 = {"norm_type": 2.0}

CASES = (
    (
        "lp_pool2d",
        Case("L2 under overlapping windows", (2, 5, 13, 15), L2 | {"kernel_size": 3, "stride": 2}),
    ),
    ("lp_pool2d", Case("two by two", (2, 6, 8, 10), L2 | {"kernel_size": 2})),
    (
        "lp_pool2d",
        Case(
            "a norm of one adds signed values",
            (1, 3, 7, 9),
            {"norm_type": 1.0, "kernel_size": 3, "stride": 2},
        ),
    ),
    (
        "lp_pool2d",
        Case(
            "an odd power of negative values has no root",
            (1, 3, 8, 9),
            {"norm_type": 3.0, "kernel_size": 2},
        ),
    ),
    (
        "lp_pool2d",
        Case(
            "a power without a kernel of its own",
            (1, 3, 8, 9),
            {"norm_type": 4.0, "kernel_size": 3, "stride": 2},
        ),
    ),
    (
        "lp_pool2d",
        Case("no whole power", (1, 3, 8, 9), {"norm_type": 2.5, "kernel_size": 2}, values="large"),
    ),
    (
        "lp_pool2d",
        Case(
            "stride beyond the kernel leaves gaps",
            (1, 3, 11, 12),
            L2 | {"kernel_size": 2, "stride": 3},
        ),
    ),
    ("lp_pool2d", Case("stride one", (1, 4, 6, 7), L2 | {"kernel_size": 3, "stride": 1})),
    (
        "lp_pool2d",
        Case(
            "ceil mode counts a part for a whole",
            (1, 3, 8, 10),
            L2 | {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        ),
    ),
    (
        "lp_pool2d",
        Case(
            "everything differs by axis",
            (2, 3, 12, 11),
            L2 | {"kernel_size": (3, 2), "stride": (2, 1)},
        ),
    ),
    (
        "lp_pool2d",
        Case(
            "windows of zeros pass nothing back",
            (2, 4, 9, 9),
            L2 | {"kernel_size": 2},
            values="ties",
        ),
    ),
    ("lp_pool2d", Case("the whole map", (2, 4, 7, 7), L2 | {"kernel_size": 7})),
    (
        "lp_pool2d",
        Case(
            "NaN stays in its windows",
            (1, 4, 9, 10),
            L2 | {"kernel_size": 3, "stride": 2},
            values="nan",
        ),
    ),
    (
        "lp_pool2d",
        Case("channels last", (2, 9, 9, 8), L2 | {"kernel_size": 3, "stride": 2}, "channels_last"),
    ),
    *(
        (
            "lp_pool2d",
            Case(
                f"whole vectors of channels, {kernel} wide",
                (2, 24, 8, 10),
                L2 | {"kernel_size": kernel, "stride": 2, "ceil_mode": True},
                "channels_last",
                values,
            ),
        )
        for kernel, values in ((3, "normal"), (2, "ties"))
    ),
    (
        "lp_pool2d",
        Case(
            "two by two, a part for a whole",
            (1, 5, 7, 9),
            L2 | {"kernel_size": 2, "ceil_mode": True},
        ),
    ),
    (
        "lp_pool2d",
        Case(
            "channels last leaves gaps",
            (2, 17, 9, 8),
            L2 | {"kernel_size": 2, "stride": 3, "ceil_mode": True},
            "channels_last",
        ),
    ),
    (
        "lp_pool2d",
        Case(
            "a slice of a larger map", (2, 3, 9, 8), L2 | {"kernel_size": 3, "stride": 2}, "sliced"
        ),
    ),
    (
        "lp_pool2d",
        Case("an odd storage offset", (1, 3, 9, 8), L2 | {"kernel_size": 3, "stride": 2}, "offset"),
    ),
    (
        "lp_pool2d",
        Case(
            "an expanded gradient", (2, 3, 9, 8), L2 | {"kernel_size": 3, "stride": 2}, "expanded"
        ),
    ),
    ("lp_pool2d", Case("an empty batch", (0, 3, 9, 8), L2 | {"kernel_size": 3, "stride": 2})),
    ("lp_pool2d", Case("unbatched", (3, 9, 8), L2 | {"kernel_size": 3, "stride": 2})),
    (
        "lp_pool2d",
        Case(
            "wide enough for every vector length",
            (1, 2, 5, 83),
            L2 | {"kernel_size": 3, "stride": 2},
        ),
    ),
    ("lp_pool1d", Case("one axis", (2, 5, 19), L2 | {"kernel_size": 3, "stride": 2})),
    (
        "lp_pool3d",
        Case(
            "three axes",
            (1, 3, 7, 8, 9),
            L2 | {"kernel_size": (2, 3, 3), "stride": (1, 2, 3), "ceil_mode": True},
        ),
    ),
    (
        "lp_pool3d",
        Case(
            "a part for a whole along every axis",
            (1, 3, 6, 6, 8),
            L2 | {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        ),
    ),
    (
        "lp_pool3d",
        Case("three axes channels last", (2, 5, 5, 6, 7), L2 | {"kernel_size": 2}, "channels_last"),
    ),
    (
        "lp_pool2d",
        Case("the largest magnitude", (1, 3, 8, 9), {"norm_type": math.inf, "kernel_size": 3}),
    ),
    (
        "lp_pool2d",
        Case("the smallest magnitude", (1, 3, 8, 9), {"norm_type": -math.inf, "kernel_size": 3}),
    ),
)
POOLS = pytest.mark.parametrize("name, case", CASES, ids=lambda value: str(value))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@POOLS
@pytest.mark.parametrize("server", servers("pool_lp"))
def test_against_reference(server, name, case, dtype):
    backend, device = server
    ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
    x = operand(case, dtype, device)
    pytorch = run_pytorch(lambda x: theirs(x, **case.arguments), [x], lambda y: gradient(case, y))
    if backend == "aten" and dtype in (torch.float16, torch.bfloat16):
        pytest.skip("PyTorch takes powers and sums in the low dtype, where they overflow")
    three = (
        run(lambda x: ours(x, **case.arguments, backend=backend), [x], lambda y: gradient(case, y)),
        pytorch,
        run(
            lambda x: ours(x, **case.arguments, backend="reference"),
            [x.double()],
            lambda y: gradient(case, y),
        ),
    )
    for what, *each in zip(("y", "grad_x"), *three, strict=True):
        hold(*each, what)
    y = ours(x, **case.arguments, backend=backend)
    assert torch.equal(y.nan_to_num(), three[0][0].nan_to_num()), "inference and training differ"


@POOLS
def test_reference_is_pytorch_in_float64(name, case):
    x = operand(case, torch.float64, "cpu")
    ours, theirs = getattr(functional, name), getattr(torch.nn.functional, name)
    pairs = zip(
        run(
            lambda x: ours(x, **case.arguments, backend="reference"),
            [x],
            lambda y: gradient(case, y),
        ),
        run(lambda x: theirs(x, **case.arguments), [x], lambda y: gradient(case, y)),
        strict=True,
    )
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11, equal_nan=True)


@pytest.mark.parametrize("server", servers("pool_lp"))
def test_by_hand(server):
    """Windows of 3, 4 and of 0, 0: a norm of 5, and no gradient where the root is steepest."""
    backend, device = server
    x = torch.tensor([[[3.0, 4.0, 0.0, 0.0]]], device=device, requires_grad=True)
    y = functional.lp_pool1d(x, 2, 2, backend=backend)
    y.sum().backward()
    torch.testing.assert_close(y, torch.tensor([[[5.0, 0.0]]], device=device))
    torch.testing.assert_close(x.grad, torch.tensor([[[0.6, 0.8, 0.0, 0.0]]], device=device))


@pytest.mark.parametrize("server", servers("pool_lp"))
def test_derivatives(server):
    backend, device = server
    x = torch.rand(1, 2, 7, 6, dtype=torch.float64, device=device) + 0.5
    x.requires_grad_()
    for function in (
        lambda x: functional.lp_pool2d(x, 2, 3, 2, True, backend=backend),
        lambda x: functional.lp_pool2d(x, 1, 2, backend=backend),
        lambda x: functional.lp_pool2d(x, 2.5, 2, 1, backend=backend),
        lambda x: functional.lp_pool1d(x.flatten(2), 3, 3, 2, backend=backend),
        lambda x: functional.lp_pool3d(x.unflatten(3, (2, 3)), 2, (3, 2, 2), backend=backend),
    ):
        torch.autograd.gradcheck(function, x, fast_mode=True)
        torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("pool_lp"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    contiguous = torch.rand(2, 3, 7, 8, device=device)
    ops = torch.ops.pydl
    for x in (contiguous, contiguous.contiguous(memory_format=torch.channels_last)):
        opcheck(ops.lp_pool_forward.default, (x, 2.0, [3, 3], [2, 2], [3, 3], backend))
        y = ops.lp_pool_forward(x, 2.0, [3, 3], [2, 2], [3, 3], backend)
        opcheck(ops.lp_pool_backward.default, (y, x, y, 2.0, [3, 3], [2, 2], backend))


@pytest.mark.parametrize("server", servers("pool_lp"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(4, 11), st.integers(4, 11)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    norm_type=st.sampled_from((1, 2, 3, 1.5)),
    ceil_mode=st.booleans(),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
)
def test_any_window(server, size, kernel, stride, norm_type, ceil_mode, view):
    backend, device = server
    case = Case("any", (1, 3, *size), view=view)
    x = operand(case, torch.float32, device).abs()
    arguments = norm_type, kernel, stride, ceil_mode
    mine = run(
        lambda x: functional.lp_pool2d(x, *arguments, backend=backend),
        [x],
        lambda y: gradient(case, y),
    )
    theirs = run(
        lambda x: torch.nn.functional.lp_pool2d(x, *arguments), [x], lambda y: gradient(case, y)
    )
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


X = torch.rand(1, 3, 8, 8)
BAD = (
    ("lp_pool2d", ([1.0], 2, 2), TypeError, "argument 'input' must be Tensor, not list"),
    (
        "lp_pool2d",
        (X, "2", 2),
        TypeError,
        "received an invalid combination of arguments - got \\(str\\)",
    ),
    ("lp_pool2d", (X, 0, 2), ZeroDivisionError, "division by zero"),
    ("lp_pool2d", (X[0, 0], 2, 2), IndexError, "Dimension out of range"),
    ("lp_pool2d", (X, 2, 0), RuntimeError, "stride should not be zero"),
    ("lp_pool2d", (X, 2, 9), RuntimeError, "Output size is too small"),
    ("lp_pool2d", (X.long(), 2, 2), RuntimeError, "serves float32.*got torch.int64"),
)


@pytest.mark.parametrize("name, arguments, error, message", BAD)
def test_bad_input(name, arguments, error, message):
    for backend in ("reference", "cpu", "triton", "cuda"):
        if backends.BACKENDS[backend].devices in ((), ("cpu",)):
            with pytest.raises(error, match=message):
                getattr(functional, name)(*arguments, backend=backend)
