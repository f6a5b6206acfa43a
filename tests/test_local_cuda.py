"""The CUDA kernels of locally connected layers against unfolded products in float64."""

import itertools

import pytest
import torch
from contract import DTYPES, hold, laid_out

from pydl import backends, layout, native

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(backends.BACKENDS["cuda"].missing is not None, reason="no CUDA kernels"),
]
DEVICE = backends.BACKENDS["cuda"].devices[0]

CASES = (
    # x, filters, kernel, stride, padding, dilation
    ((2, 3, 9), 4, (3,), (2,), (1,), (1,)),
    ((2, 3, 7, 6), 5, (3, 2), (1, 1), (1, 0), (1, 1)),
    ((3, 2, 8, 9), 3, (2, 3), (2, 3), (0, 1), (3, 2)),
    ((1, 2, 4, 5, 4), 3, (2, 3, 2), (1, 2, 1), (1, 1, 0), (2, 1, 1)),
    ((0, 2, 5, 5), 3, (3, 3), (1, 1), (1, 1), (1, 1)),
)


def _columns(x, kernel, stride, padding, dilation):
    """(N, C * taps, positions...) of a map: what each position's weights are multiplied with."""
    outputs = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    padded = torch.nn.functional.pad(x, [p for p in reversed(padding) for _ in range(2)])
    of_taps = []
    for tap in itertools.product(*map(range, kernel)):
        window = [
            slice(t * d, t * d + s * (o - 1) + 1, s)
            for t, d, s, o in zip(tap, dilation, stride, outputs, strict=True)
        ]
        of_taps.append(padded[(..., *window)])
    return torch.stack(of_taps, 2).flatten(1, 2)


def _layer(x, weight, bias, window):
    return torch.einsum("nk...,fk...->nf...", _columns(x, *window), weight) + bias


@pytest.mark.parametrize("view", ("contiguous", "channels_last", "sliced"))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_unfolded_products(case, dtype, view):
    shape, filters, *window = case
    library = native.library("cuda")
    x = torch.randn(shape).to(dtype).double().requires_grad_()
    columns = _columns(x, *window)
    weight = torch.randn(filters, *columns.shape[1:]).to(dtype).double().requires_grad_()
    bias = torch.randn(1, filters, *columns.shape[2:]).to(dtype).double()
    exact = _layer(x, weight, bias, window)
    grad_y = torch.randn(exact.shape).to(dtype).double()
    exact_x, exact_weight = torch.autograd.grad(exact, (x, weight), grad_y)

    ours = [
        laid_out(t.detach().to(dtype).to(DEVICE), view if t.shape[0] else "contiguous")
        for t in (x, weight, bias, grad_y)
    ]
    low = [t.cpu().clone().requires_grad_() for t in ours[:2]]
    theirs = _layer(*low, ours[2].cpu(), window)
    their_grads = torch.autograd.grad(theirs, low, ours[3].cpu())
    y = layout.empty(exact.shape, ours[0])
    library.call("local_forward", *ours[:3], y, *window, on=y)
    hold(y, theirs.detach(), exact.detach(), "y")
    library.call("local_forward", ours[0], ours[1], None, y, *window, on=y)
    hold(y, theirs.detach() - ours[2].cpu(), (exact - bias).detach(), "y without bias")
    grad_x = layout.empty(shape, ours[0])
    library.call("local_grad_input", ours[3], ours[1], grad_x, *window, on=y)
    hold(grad_x, their_grads[0], exact_x, "grad_x")
    grad_weight = layout.empty(weight.shape, ours[0])
    library.call("local_grad_weight", ours[3], ours[0], grad_weight, *window, on=y)
    hold(grad_weight, their_grads[1], exact_weight, "grad_weight")


def test_refusals():
    library = native.library("cuda")
    x, y = torch.randn(1, 2, 5, device=DEVICE), torch.empty(1, 3, 4, device=DEVICE)
    window = (2,), (1,), (0,), (1,)
    with pytest.raises(ValueError, match="expects 4 weights a filter, got 5"):
        library.call("local_forward", x, torch.randn(3, 5, 4), None, y, *window, on=x)
    with pytest.raises(ValueError, match="with weights for 3"):
        library.call("local_forward", x, torch.randn(3, 4, 3), None, y, *window, on=x)
