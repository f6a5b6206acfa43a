"""A map times a number, every backend against the definition."""

import pytest
import torch

import pydl
from pydl import backends, functional


@pytest.mark.parametrize("backend", backends.serving("gain"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("last", (False, True))
def test_against_the_definition(backend, dtype, last):
    x = torch.randn(2, 3, 5, 7).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    x.requires_grad_()
    y = functional.gain(x, 1.5, backend=backend)
    exact = functional.gain(x.double(), 1.5, backend="reference")
    torch.testing.assert_close(y, exact.to(dtype))
    assert y.stride() == x.stride()
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert bool((grad == 1.5).all())


def test_the_layer_and_a_graph():
    layer = pydl.nn.Gain(-2.0, backend="cpu")
    x = torch.randn(4, 3)
    torch.testing.assert_close(torch.compile(layer, backend="eager", fullgraph=True)(x), -2 * x)
