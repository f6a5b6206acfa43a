"""What only the Triton kernels of recurrent layers have: two paths through the steps, offsets of 64
bits, and float32's precision on the tensor cores."""

from functools import partial

import pytest
import torch
from contract import nearest_tf32
from pydl.kernels import rnn_sequence, rnn_step, runtime

from pydl import backends
from pydl.contract.rnn import GATES

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# What one launch for all steps serves, options together.
ROWS = (
    ("lstm", torch.float32, ("peephole", "masks", "packed")),
    ("lstm", torch.bfloat16, ("drop", "mean", "reverse", "packed")),
    ("gru", torch.float16, ("drop", "masks", "reverse")),
    ("gru", torch.float64, ("packed",)),
    ("gru_reset_before", torch.float32, ("drop", "mean", "packed")),
    ("gru_reset_before", torch.bfloat16, ("masks", "reverse", "packed")),
    ("rnn_tanh", torch.bfloat16, ("packed", "drop")),
    ("rnn_relu", torch.float64, ("mean", "reverse", "packed")),
)


def _layer(cell: str, dtype: torch.dtype, options: tuple[str, ...], rows: int = 18) -> tuple:
    """Operands of the forward, what is no tensor, and gradients: of more sequences than a program
    has, of which some end early."""
    hidden, sizes = 5, [rows, rows - 1, rows - 1, 2] if "packed" in options else [rows] * 3
    tokens, lstm, gates = sum(sizes), cell == "lstm", GATES[cell]

    def of(*size: int) -> torch.Tensor:
        return torch.randn(size, device=DEVICE).to(dtype)

    def mask() -> torch.Tensor | None:
        made = (torch.rand(tokens, hidden, device=DEVICE) < 0.3).byte()
        return made if "masks" in options else None

    weight = (torch.randn(gates * hidden, hidden, device=DEVICE) * 0.4).to(dtype)
    drop = (torch.rand(rows, hidden, device=DEVICE) < 0.5).to(dtype) * 2
    operands = (
        *(of(tokens, gates * hidden), weight, of(gates * hidden), of(rows, hidden)),
        *(of(rows, hidden) if lstm else None, None),
        of(3, hidden) if "peephole" in options else None,
        *(None, None, None, drop if "drop" in options else None, mask()),
        mask() if lstm else None,
        torch.tensor(sizes) if "packed" in options else None,
    )
    part = 0.3 if "mean" in options else 0.0
    grads = of(tokens, hidden), of(rows, hidden), of(rows, hidden) if lstm else None
    return operands, (cell, "reverse" in options, part, part, 1e-5), grads


def _both_passes(operands: tuple, how: tuple, grads: tuple, backend: str = "triton") -> tuple:
    run = partial(backends.function, backend)
    results = run("rnn_forward")(*operands, *how, True)
    y, _, _, c, activated, *_ = results
    saved = y, c if c.numel() else None, activated, None, None
    return *results, *run("rnn_backward")(*grads, *saved, operands[1], *operands[3:], *how)


def _same(ours: tuple, theirs: tuple, units: float = 8) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype, index
        if a.numel():
            tiny = units * torch.finfo(ours[0].dtype).eps * max(1.0, b.abs().max().item())
            torch.testing.assert_close(a, b, rtol=0, atol=tiny)


@pytest.mark.parametrize(("cell", "dtype", "options"), ROWS, ids=str)
def test_one_launch_is_as_step_by_step(cell, dtype, options, monkeypatch):
    """And each is the reference; the same bits when it runs again."""
    layer = _layer(cell, dtype, options)
    paths = []

    def watched(path, name):
        run = getattr(path, name)
        monkeypatch.setattr(path, name, lambda *given: (paths.append(path), run(*given)))

    for path in (rnn_sequence, rnn_step):
        watched(path, "forward")
        watched(path, "backward")
    one_launch = _both_passes(*layer)
    assert set(paths) == {rnn_sequence}
    assert all(map(torch.equal, one_launch, _both_passes(*layer)))
    monkeypatch.setattr(rnn_sequence, "in_reach", lambda _: False)
    paths.clear()
    steps = _both_passes(*layer)
    assert set(paths) == {rnn_step}
    _same(one_launch, steps)
    _same(steps, _both_passes(*layer, backend="reference"), 32)


def test_what_is_in_reach(monkeypatch):
    others = dict.fromkeys(("norm", "weight_hr", "zone_h", "zone_c"))

    def reached(units: int, dtype: torch.dtype, **options) -> bool:
        weight = torch.empty(4 * units, units, dtype=dtype, device="meta")
        return rnn_sequence.in_reach({**others, "weight_hh": weight, **options})

    for dtype, units, tf32 in (
        (torch.float16, 128, True),
        (torch.float32, 64, True),
        (torch.float32, 32, False),
        (torch.float64, 32, True),
    ):
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            assert reached(units, dtype) and not reached(units + 1, dtype)
            for option in ("norm", "weight_hr"):
                assert not reached(units, dtype, **{option: torch.empty(units)})
            for mask in ("zone_h", "zone_c"):
                served = dtype != torch.float64
                assert reached(units, dtype, **{mask: torch.empty(units)}) == served
    # A GPU whose programs have less shared memory than sm_80's.
    monkeypatch.setattr(rnn_sequence, "shared_memory", lambda _: 99 * 1024)
    assert reached(64, torch.float16) and not reached(65, torch.float16)


@pytest.mark.parametrize("sequence", (True, False), ids=("one launch", "step by step"))
@pytest.mark.parametrize("cell", ("lstm", "gru_reset_before"))
def test_offsets_of_64_bits(cell, sequence, monkeypatch):
    """The same numbers, bit for bit, as with those of 32. No token of a layer is left out, so more
    than 2^31 numbers are too many for a test."""
    layer = _layer(cell, torch.float32, ("drop", "packed"), rows=3)
    monkeypatch.setattr(rnn_sequence, "in_reach", lambda _: sequence)
    narrow = _both_passes(*layer)
    monkeypatch.setattr(runtime, "wide", lambda *_: True)
    assert all(map(torch.equal, narrow, _both_passes(*layer)))


def test_float32_multiplies_as_pytorchs_flags_say(monkeypatch):
    precisions = []
    monkeypatch.setattr(
        runtime, "launch", lambda *_, **named: precisions.append(named.get("INPUT_PRECISION"))
    )
    for dtype in (torch.float32, torch.float64, torch.float16):
        for allow in (True, False):
            for sequence in (True, False):
                monkeypatch.setattr(rnn_sequence, "in_reach", lambda _, sequence=sequence: sequence)
                with torch.backends.cudnn.flags(allow_tf32=allow):
                    _both_passes(*_layer("lstm", dtype, ()))
                wanted = "tf32" if allow and dtype == torch.float32 else "ieee"
                assert {p for p in precisions if p} == {wanted}
                precisions.clear()


@pytest.mark.parametrize("sequence", (True, False), ids=("one launch", "step by step"))
def test_tf32_is_rounded_to_the_nearest(sequence, monkeypatch):
    """One step, whose operands are what the tensor cores are given: they would cut off what TF32
    has no place for."""
    operands, how, _ = _layer("lstm", torch.float32, (), rows=3)
    gates, weight, bias, h0, c0, *rest = operands
    monkeypatch.setattr(rnn_sequence, "in_reach", lambda _: sequence)

    def step(backend, *changed):
        run = backends.function(backend, "rnn_forward")
        return run(gates[:3].to(changed[0].dtype), *changed, *rest, *how, False)[1]

    with torch.backends.cudnn.flags(allow_tf32=True):
        ours = step("triton", weight, bias, h0, c0)
    exact = nearest_tf32(weight), bias, nearest_tf32(h0), c0
    exact = step("reference", *(t.double() for t in exact))
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=1e-6)


def test_packed_sequences_are_not_copied_from_the_host(monkeypatch):
    """Which would wait for a GPU, and could not be captured in a CUDA graph."""
    layer = _layer("gru", torch.float32, ("packed",), rows=3)

    def copy(*_, **__):
        raise AssertionError("a tensor made of numbers of the host")

    monkeypatch.setattr(torch, "tensor", copy)
    monkeypatch.setattr(torch, "as_tensor", copy)
    assert all(result.isfinite().all() for result in _both_passes(*layer))
