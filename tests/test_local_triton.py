"""Locally connected layers in Triton, against the definition in float64."""

import itertools
import math

import pytest
import torch
from contract import DTYPES, Case, gradient, hold, operand

from pydl.kernels import local

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES = (
    # x; filters, kernel, stride, padding, dilation
    (Case("three by three", (2, 3, 6, 5)), 4, (3, 3), (1, 1), (1, 1), (1, 1)),
    (Case("stride two, odd sizes", (2, 2, 7, 6)), 3, (3, 3), (2, 2), (1, 1), (1, 1)),
    (Case("stride beyond the kernel", (1, 2, 8, 7)), 2, (2, 1), (3, 3), (0, 1), (1, 1)),
    (Case("dilation shares a factor with stride", (1, 2, 9, 8)), 2, (3, 2), (4, 1), (2, 0), (2, 3)),
    (Case("one axis", (3, 2, 9)), 5, (3,), (2,), (1,), (1,)),
    (Case("three axes", (1, 2, 4, 5, 4)), 3, (2, 3, 2), (1, 2, 2), (1, 1, 0), (2, 1, 1)),
    (Case("more of everything than a tile", (9, 2, 9, 9)), 9, (1, 2), (1, 1), (0, 0), (1, 1)),
    (
        Case("a slice of a larger map", (2, 3, 5, 5), {}, "sliced"),
        2,
        (2, 2),
        (1, 1),
        (0, 0),
        (1, 1),
    ),
    (Case("channels last", (2, 3, 5, 5), {}, "channels_last"), 2, (2, 2), (1, 1), (0, 0), (1, 1)),
    (Case("an empty batch", (0, 3, 5, 5)), 2, (2, 2), (1, 1), (0, 0), (1, 1)),
)


def _definition(x, weight, bias, kernel_size, stride, padding, dilation):
    """csrc/local.h's sum, tap by tap, in plain differentiable arithmetic."""
    out, taps = weight.shape[2:], math.prod(kernel_size)
    x = torch.nn.functional.pad(x, [p for axis in reversed(padding) for p in (axis, axis)])
    y = x.new_zeros(x.shape[0], weight.shape[0], *out) + (0 if bias is None else bias)
    for t, tap in enumerate(itertools.product(*map(range, kernel_size))):
        part = x
        for axis, (at, s, d, n) in enumerate(zip(tap, stride, dilation, out, strict=True), start=2):
            places = torch.arange(n, device=x.device) * s + at * d
            part = part.index_select(axis, places)
        y = y + torch.einsum("nc...,fc...->nf...", part, weight[:, t::taps])
    return y


def _rounded(x, weight, bias, *window):
    """The same in the operands' dtype: halves computed in float32 and rounded once."""
    if x.dtype in (torch.float16, torch.bfloat16):
        return _definition(x.float(), weight.float(), bias.float(), *window).to(x.dtype)
    return _definition(x, weight, bias, *window)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("row", CASES, ids=lambda row: str(row[0]))
def test_triton_against_the_definition(row, dtype):
    case, filters, *window = row
    kernel_size = window[0]
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(case.shape[2:], *window, strict=True)
    ]
    rows = case.shape[1] * math.prod(kernel_size)
    x = operand(case, dtype, DEVICE)
    weight = operand(case, dtype, DEVICE, (filters, rows, *out), seed=2)
    bias = operand(case, dtype, DEVICE, (filters, *out), seed=3)

    def gradients(function, *operands):
        leaves = [leaf.detach().requires_grad_() for leaf in operands]
        y = function(*leaves, *window)
        return [y.detach(), *torch.autograd.grad(y, leaves[:2], gradient(case, y))]

    y = local.local_forward(x, weight, bias, *window)
    grad_y = gradient(case, y)
    ours = [
        y,
        local.local_grad_input(grad_y, weight, case.shape[2:], *window),
        local.local_grad_weight(grad_y, x, *window),
    ]
    theirs = gradients(_rounded, x, weight, bias)
    exact = gradients(_definition, x.double(), weight.double(), bias.double())
    for what, *three in zip(("y", "grad_x", "grad_weight"), ours, theirs, exact, strict=True):
        hold(*three, what)
    plain = _definition(x.double(), weight.double(), None, *window)
    hold(local.local_forward(x, weight, None, *window), None, plain, "y without bias")
