"""Local response normalisation: every backend against the reference, and the reference against
PyTorch and by hand."""

import pytest
import torch
from contract import DTYPES, Case, gradient, hold, opcheck, operand, run, run_pytorch, servers
from hypothesis import given, settings
from hypothesis import strategies as st

from pydl import backends, functional

CASES = (
    Case("AlexNet's five channels", (2, 8, 5, 7), {"size": 5}),
    Case(
        "its paper's constants, no beta of a default",
        (1, 6, 4, 4),
        {"size": 5, "alpha": 5e-4, "beta": 0.6, "k": 2.0},
    ),
    Case("an even size looks further down than up", (2, 7, 3, 5), {"size": 4, "alpha": 0.5}),
    Case("a size of two", (1, 5, 4, 3), {"size": 2, "alpha": 1.0}),
    Case("a size of one", (1, 3, 3, 3), {"size": 1, "alpha": 1.0}),
    Case("a window wider than the channels", (2, 3, 4, 5), {"size": 9, "alpha": 1.0}),
    Case("one channel", (2, 1, 5, 5), {"size": 5, "alpha": 1.0}),
    Case(
        "large values where the sum of squares dominates",
        (1, 9, 4, 4),
        {"size": 5, "alpha": 1.0},
        values="large",
    ),
    Case("five of a number that no vector divides", (2, 19, 5, 3), {"size": 5, "alpha": 0.3}),
    Case("nothing added to the squares", (1, 19, 3, 4), {"size": 5, "alpha": 0.3, "k": 0.0}),
    Case("channels last", (2, 8, 5, 7), {"size": 5, "alpha": 0.3}, "channels_last"),
    Case("channels last, whole vectors", (2, 24, 3, 5), {"size": 5, "alpha": 0.3}, "channels_last"),
    Case("channels last, half a strip", (1, 12, 5, 7), {"size": 5, "alpha": 0.3}, "channels_last"),
    Case("channels last, no vectors", (1, 13, 5, 3), {"size": 5, "alpha": 0.3}, "channels_last"),
    Case("channels last, even size", (2, 17, 3, 5), {"size": 4, "alpha": 0.3}, "channels_last"),
    Case("channels last, strips of an even size", (2, 16, 3, 5), {"size": 4}, "channels_last"),
    Case("channels last, strips of seven", (1, 24, 3, 5), {"size": 7}, "channels_last"),
    Case("channels last, strips of two", (1, 16, 3, 5), {"size": 2}, "channels_last"),
    Case("channels last, strips of one", (1, 16, 3, 5), {"size": 1}, "channels_last"),
    Case("channels last, more strips than a block", (1, 40, 9, 5), {"size": 5}, "channels_last"),
    Case(
        "NaN spreads to its window and no further, channels last",
        (1, 16, 3, 4),
        {"size": 5, "alpha": 0.3, "k": 0.0},
        "channels_last",
        values="nan",
    ),
    Case("a slice of a larger map", (2, 6, 5, 3), {"size": 3, "alpha": 0.3}, "sliced"),
    Case("an odd storage offset", (1, 6, 5, 3), {"size": 3, "alpha": 0.3}, "offset"),
    Case("an expanded gradient", (2, 6, 5, 3), {"size": 3, "alpha": 0.3}, "expanded"),
    Case("an empty batch", (0, 6, 5, 3), {"size": 3}),
    Case("three axes", (2, 6, 11), {"size": 3, "alpha": 0.3}),
    Case("five axes", (1, 6, 2, 3, 5), {"size": 3, "alpha": 0.3}),
    Case(
        "NaN spreads to its window and no further",
        (1, 9, 3, 4),
        {"size": 3, "alpha": 0.3},
        values="nan",
    ),
    Case(
        "NaN spreads to five and no further",
        (1, 21, 3, 4),
        {"size": 5, "alpha": 0.3},
        values="nan",
    ),
    Case("more pixels than a block of any kernel", (1, 5, 23, 29), {"size": 5, "alpha": 0.3}),
)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("server", servers("lrn"))
def test_against_reference(server, case, dtype):
    backend, device = server
    x = operand(case, dtype, device)
    theirs = run_pytorch(
        lambda x: torch.nn.functional.local_response_norm(x, **case.arguments),
        [x],
        lambda y: gradient(case, y),
    )
    if backend == "aten" and theirs[0] is None:
        pytest.skip(f"PyTorch has no LRN of {dtype} on {device}")
    ours = run(
        lambda x: functional.local_response_norm(x, **case.arguments, backend=backend),
        [x],
        lambda y: gradient(case, y),
    )
    exact = run(
        lambda x: functional.local_response_norm(x, **case.arguments, backend="reference"),
        [x.double()],
        lambda y: gradient(case, y),
    )
    for what, *three in zip(("y", "grad_x"), ours, theirs, exact, strict=True):
        hold(*three, what)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reference_is_pytorch_in_float64(case):
    x = operand(case, torch.float64, "cpu")
    ours = run(
        lambda x: functional.local_response_norm(x, **case.arguments, backend="reference"),
        [x],
        lambda y: gradient(case, y),
    )
    theirs = run(
        lambda x: torch.nn.functional.local_response_norm(x, **case.arguments),
        [x],
        lambda y: gradient(case, y),
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("server", servers("lrn"))
def test_by_hand(server):
    """Three channels of 1, 2, 3 with size 3, alpha 3, k 1, beta 1: y = x / (1 + sum of the squares
    in reach)."""
    backend, device = server
    x = torch.tensor([1.0, 2.0, 3.0], device=device).reshape(1, 3, 1)
    y = functional.local_response_norm(x, 3, alpha=3.0, beta=1.0, k=1.0, backend=backend)
    torch.testing.assert_close(y.flatten().cpu(), torch.tensor([1 / 6, 2 / 15, 3 / 14]))
    even = functional.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=1.0, backend=backend)
    torch.testing.assert_close(even.flatten().cpu(), torch.tensor([1 / 2, 2 / 6, 3 / 14]))


@pytest.mark.parametrize("server", servers("lrn"))
def test_derivatives(server):
    backend, device = server
    x = torch.randn(2, 5, 3, 2, dtype=torch.float64, device=device, requires_grad=True)

    def function(x):
        return functional.local_response_norm(x, 4, 0.7, 0.8, 1.3, backend=backend)

    torch.autograd.gradcheck(function, x, fast_mode=True)
    torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("server", servers("lrn"))
def test_forward_and_backward_of_different_backends_fit(server):
    backend, device = server
    x, grad_y = (
        torch.randn(2, 6, 3, 4, 5, device=device).unbind(0)[0][None],
        torch.randn(1, 6, 3, 4, 5, device=device),
    )
    arguments = (3, 0.5, 0.75, 1.0)
    for other in ("reference", "aten"):
        for name, operands in (("lrn_forward", (x,)), ("lrn_backward", (grad_y, x))):
            ours = backends.function(backend, name)(*operands, *arguments)
            torch.testing.assert_close(ours, backends.function(other, name)(*operands, *arguments))


@pytest.mark.parametrize("server", servers("lrn"))
def test_operators_are_registered_correctly(server):
    backend, device = server
    x, grad_y = torch.randn(2, 6, 3, 5, device=device), torch.randn(2, 6, 3, 5, device=device)
    for map in (x, x.contiguous(memory_format=torch.channels_last)):
        opcheck(torch.ops.pydl.lrn_forward.default, (map, 3, 0.5, 0.75, 1.0, backend))
        opcheck(torch.ops.pydl.lrn_backward.default, (grad_y, map, 3, 0.5, 0.75, 1.0, backend))


@pytest.mark.parametrize("server", servers("lrn"))
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*(st.integers(1, limit) for limit in (2, 9, 6, 6))),
    size=st.integers(1, 7),
    beta=st.sampled_from([0.5, 0.75, 1.0]),
    view=st.sampled_from(["contiguous", "channels_last", "sliced"]),
)
def test_any_shape(server, shape, size, beta, view):
    backend, device = server
    case = Case("any", shape, view=view)
    x = operand(case, torch.float32, device)
    arguments = (size, 0.5, beta, 1.5)
    ours = run(
        lambda x: functional.local_response_norm(x, *arguments, backend=backend),
        [x],
        lambda y: gradient(case, y),
    )
    theirs = run(
        lambda x: torch.nn.functional.local_response_norm(x, *arguments),
        [x],
        lambda y: gradient(case, y),
    )
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([1.0], 5), TypeError, "argument 'input' must be Tensor, not list"),
        ((torch.randn(4, 4), 5), ValueError, "Expected 3D or higher"),
        ((torch.randn(1, 4, 4), 0), RuntimeError, "size should be greater than zero"),
        ((torch.randn(1, 4, 4), 2.5), TypeError, "must be tuple of ints,but got float"),
        ((torch.ones(1, 4, 4, dtype=torch.int64), 3), RuntimeError, "got torch.int64"),
    ],
)
def test_bad_input(arguments, error, message):
    for backend in ("reference", "cpu"):
        with pytest.raises(error, match=message):
            functional.local_response_norm(*arguments, backend=backend)
