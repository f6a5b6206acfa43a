"""Recurrent layers in float16 and bfloat16 and under autocast, as ``auto`` has them served: also
where the processor, and so oneDNN, has no more than AVX2."""

import contextlib
import copy
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from pydl import nn
from pydl.bench.options import HELD_TO_AVX2
from pydl.ops import rnn_layers

HALVES = (torch.bfloat16, torch.float16)
KINDS = (
    ("LSTM", {}),
    ("LSTM", {"proj_size": 3}),
    ("LSTM", {"bidirectional": True, "num_layers": 2}),
    ("LSTM", {"peephole": True}),
    ("GRU", {}),
    ("GRU", {"reset_after": False}),
    ("RNN", {}),
)
# steps, sequences: few enough for PyTorch's operators, and enough for ours
SIZES = ((3, 2), (40, 16))


def outputs(module, x, packed, autocast, dtype):
    """The results and the gradient of every parameter, in float64."""
    given = x
    if packed:
        lengths = torch.arange(x.shape[1]).fmod(x.shape[0]) + 1
        given = pack_padded_sequence(x, lengths, enforce_sorted=False)
    with torch.autocast("cpu", dtype) if autocast else contextlib.nullcontext():
        y, last = module(given)
    results = [y.data if packed else y, *(last if isinstance(last, tuple) else (last,))]
    if torch.is_grad_enabled():
        weights = [torch.linspace(-1, 1, r.numel()).view(r.shape) for r in results]
        loss = sum((r.double() * w).mean() for r, w in zip(results, weights, strict=True))
        results += torch.autograd.grad(loss, list(module.parameters()))
    return [result.double() for result in results]


@pytest.mark.parametrize("wants_grad", (True, False))
@pytest.mark.parametrize("autocast", (True, False))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name, options", KINDS)
def test_auto_serves_every_layer(name, options, dtype, autocast, wants_grad):
    for (steps, sequences), packed in itertools.product(SIZES, (False, True)):
        module = getattr(nn, name)(8, 6, **options)
        module.to(torch.float32 if autocast else dtype)
        x = torch.randn(steps, sequences, 8).to(module.weight_hh_l0.dtype)
        with torch.set_grad_enabled(wants_grad):
            exact = outputs(copy.deepcopy(module).double(), x.double(), packed, False, dtype)
            ours = outputs(module, x, packed, autocast, dtype)
        for a, b in zip(ours, exact, strict=True):
            # A dozen roundings of bfloat16 one after the other, of float16 fewer digits' worth.
            torch.testing.assert_close(a, b, rtol=0.06, atol=0.06 * b.abs().max().item())


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512",
    reason="this processor has no more than AVX2",
)
def test_so_it_does_with_avx2():
    program = (
        "import sys, pytest, torch; from pydl import native\n"
        "native.library('cpu').functions.use_isa('avx2')\n"
        "assert torch.backends.cpu.get_cpu_capability() == 'AVX2'\n"
        f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {__file__!r},"
        " '-k', 'auto_serves_every_layer or is_found_out']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        env=os.environ | HELD_TO_AVX2,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_what_pytorch_serves_is_found_out(dtype):
    """Each way round once; asked under fake tensors the answer is the same."""
    x = torch.zeros(3, 2, 4)
    for autocast, wants_grad in itertools.product((False, True), repeat=2):
        module, given = torch.nn.LSTM(4, 6), x
        if not autocast:
            module, given = module.to(dtype), x.to(dtype)
        rnn_layers._serves_lstm.cache_clear()
        with torch.set_grad_enabled(wants_grad), torch.autocast("cpu", dtype, enabled=autocast):
            try:
                y, _ = module(given)
                if wants_grad:
                    y.float().sum().backward()
                serves = True
            except RuntimeError as error:
                assert "could not create a primitive" in str(error)
                serves = False
            with torch._subclasses.FakeTensorMode():
                assert rnn_layers.pytorch_serves(given) is serves
            assert rnn_layers.pytorch_serves(given) is serves
            assert rnn_layers._serves_lstm.cache_info().misses == 1
    assert rnn_layers.pytorch_serves(x)


@pytest.mark.parametrize("backend", ("cpu", None))
def test_autocast_with_float32_master_weights(backend):
    """Against PyTorch's LSTM in float32: in bfloat16 it has none on every processor."""
    torch.manual_seed(1)
    ours = nn.LSTM(4, 6, bidirectional=True, backend=backend)
    theirs = torch.nn.LSTM(4, 6, bidirectional=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        mine, _ = ours(x)
    expected, _ = theirs(x)
    for y in (mine, expected):
        y.float().square().sum().backward()
    assert mine.dtype == torch.bfloat16
    torch.testing.assert_close(mine.float(), expected, rtol=0.05, atol=0.02)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert a.grad.dtype == torch.float32
        torch.testing.assert_close(a.grad, b.grad, rtol=0.1, atol=0.05)
