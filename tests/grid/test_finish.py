"""Residual and activation behind PyTorch's own operators: in the place of their result."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pydl import functional

X = torch.randn(2, 4, 6, 5, dtype=torch.float64)
R = torch.randn_like(X)
MEAN, VAR = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 1
WEIGHT = torch.randn(4, 4, 1, 1, dtype=torch.float64)
ACTIVATIONS = {
    "relu": torch.relu,
    "leaky_relu": partial(torch.nn.functional.leaky_relu, negative_slope=-0.5),
    "silu": torch.nn.functional.silu,
}


def normalised(x, residual, activation="relu"):
    how = {"activation": activation, "negative_slope": -0.5, "residual": residual}
    return functional.batch_norm_act(x, MEAN, VAR, backend="aten", **how)


def convolved(x, residual, activation="relu"):
    how = {"activation": activation, "negative_slope": -0.5, "residual": residual}
    return functional.conv2d_bias_act(x, WEIGHT, backend="aten", **how)


def plainly(function, x, residual, activation):
    if function is convolved:
        y = torch.nn.functional.conv2d(x, WEIGHT)
    else:
        y = torch.nn.functional.batch_norm(x, MEAN, VAR)
    return ACTIVATIONS[activation](y + residual)


class Allocated(TorchDispatchMode):
    """Notes the memory of results that is not that of an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        first = result[0] if isinstance(result, tuple) else result
        held = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        if first.untyped_storage().data_ptr() not in held:
            self.bytes.append(first.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("function", [normalised, convolved])
def test_one_map_is_made(function) -> None:
    with torch.no_grad(), Allocated() as allocated:
        function(X, R)
    assert [count for count in allocated.bytes if count] == [8 * X.numel()]


@pytest.mark.parametrize(
    ("function", "activation"),
    [
        *((normalised, name) for name in ("relu", "leaky_relu")),
        *((convolved, n) for n in ACTIVATIONS),
    ],
)
def test_results_and_gradients(function, activation) -> None:
    """With a negative slope too, where the sign of a result is not that of what it was made of."""
    for residual in (R, R.clone().requires_grad_()):
        x = X.clone().requires_grad_()
        y, expected = function(x, residual, activation), plainly(function, x, residual, activation)
        torch.testing.assert_close(y, expected)
        wanted = [x, residual] if residual.requires_grad else [x]
        found = torch.autograd.grad(y, wanted, R)
        torch.testing.assert_close(found, torch.autograd.grad(expected, wanted, R))
    assert torch.equal(R, residual) and torch.autograd.gradgradcheck(
        lambda x: function(x, R, activation), X.clone().requires_grad_()
    )


@pytest.mark.parametrize("function", [normalised, convolved])
def test_a_batch_of_residuals_for_one_map(function) -> None:
    residuals = torch.stack([R, 2 * R])
    found = torch.func.vmap(lambda residual: function(X, residual))(residuals)
    torch.testing.assert_close(found[1], function(X, 2 * R))


@pytest.mark.parametrize("function", [normalised, convolved])
def test_compiled(function) -> None:
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    x = X.clone().requires_grad_()
    y, expected = compiled(x, R), function(x, R)
    torch.testing.assert_close(y, expected)
    found, right = (torch.autograd.grad(one, x, R)[0] for one in (y, expected))
    torch.testing.assert_close(found, right)
