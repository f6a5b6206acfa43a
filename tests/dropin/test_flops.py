"""FlopCounterMode counts a layer's operations, whichever backend serves them."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pydl

CASES = (
    ("Conv2d", (8, 16, 3), (2, 8, 20, 20)),
    ("Conv2d", (8, 8, 3, 1, 1, 1, 8), (2, 8, 20, 20)),
    ("Conv2d", (8, 16, 3, 2, 1, 1, 2), (2, 8, 20, 20)),
    ("Conv3d", (4, 6, 3), (1, 4, 8, 8, 8)),
    ("ConvTranspose2d", (8, 16, 3, 2, 1, 1), (2, 8, 20, 20)),
    ("ConvTranspose2d", (8, 16, 3, 2, 1, 1, 2), (2, 8, 20, 20)),
    ("GRU", (32, 48), (20, 4, 32)),
    ("LSTM", (32, 48, 2, True, False, 0.0, True, 24), (20, 4, 32)),
)


def count(layer, shape):
    x = torch.randn(shape, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = layer(x)
        (y[0] if isinstance(y, tuple) else y).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name, arguments, shape", CASES)
def test_counts_what_stock_counts(name, arguments, shape):
    expected = count(getattr(torch.nn, name)(*arguments), shape)
    for backend in ("auto", "reference"):
        with pydl.use_backend(backend):
            counted = count(getattr(pydl.nn, name)(*arguments), shape)
        # A recurrent layer's kernel makes the gradient of the first state as well.
        slack = 0.02 * expected if name in ("GRU", "LSTM") else 0
        assert expected <= counted <= expected + slack


def test_locally_connected_layers_count():
    """2 N C K^2 F positions forward, as many for each gradient."""
    layer = pydl.nn.LocallyConnected2d(4, 3, (8, 8), 3)
    assert count(layer, (2, 4, 8, 8)) == 3 * 2 * 2 * 4 * 9 * 3 * 36


def test_importing_pydl_does_not_import_the_counter():
    code = "import sys, pydl.nn; assert 'torch.utils.flop_counter' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
