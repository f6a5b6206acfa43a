"""The CUDA kernels of recurrent layers against the reference: both paths, every cell and option."""

import contextlib
import math
import sys
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from pydl import backends, layout, native
from pydl.contract.rnn import GATES, room

CELLS = tuple(GATES)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Case:
    reason: str
    cells: tuple[str, ...] = CELLS
    hidden: int = 12
    sequences: int = 3
    steps: int = 4
    sizes: tuple[int, ...] | None = None  # batch_sizes
    reverse: bool = False
    bias: bool = True
    projection: int | None = None
    peephole: bool = False
    norm: bool = False
    drop: bool = False
    zone: str = "none"  # masks, numbers
    kept: bool = True
    grads: str = "y h c"

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")


PACKED = (9, 9, 4, 4, 3, 1)
CASES = (
    Case("plain"),
    Case("backwards without a bias", reverse=True, bias=False),
    Case("packed", sequences=9, sizes=PACKED),
    Case("packed and backwards", sequences=9, sizes=PACKED, reverse=True),
    Case("several blocks", hidden=40, sequences=2),
    Case("units that fill no block", hidden=37, sequences=2, reverse=True),
    Case("many sequences", hidden=8, sequences=35, steps=2),
    Case("one sequence", hidden=16, sequences=1, steps=9),
    Case("one unit", hidden=1, sequences=2),
    Case("dropout", drop=True, reverse=True),
    Case("zoneout while training", zone="masks", sequences=9, sizes=PACKED),
    Case("zoneout while testing", zone="numbers", reverse=True),
    Case("peepholes", ("lstm",), peephole=True, sequences=9, sizes=PACKED, reverse=True),
    Case("only the last state has a gradient", grads="h"),
    Case("only y has a gradient", grads="y"),
    Case("every option", peephole=True, drop=True, zone="masks", sequences=9, sizes=PACKED),
    Case("projection", ("lstm",), projection=5, sequences=9, sizes=PACKED),
    Case("projection and options", ("lstm",), projection=5, peephole=True, drop=True, zone="masks"),
    Case("layer norm", norm=True),
    Case("layer norm packed", norm=True, sequences=9, sizes=PACKED, reverse=True, drop=True),
    Case("layer norm and options", ("lstm",), norm=True, peephole=True, zone="masks"),
    Case("layer norm and projection", ("lstm",), norm=True, projection=4, zone="numbers"),
    Case("layer norm of long rows", ("lstm", "gru"), norm=True, hidden=300, sequences=1),
    # Tensor cores take 16 sequences of 20 units at a time, and their rows in ten groups.
    Case("more in a tile than threads", ("lstm",), hidden=136, sequences=13, steps=2),
    # Behind the copies of the state, which are an odd number, lie the steps' counts.
    Case("an odd number of states", ("rnn_tanh",), hidden=5, sequences=3, sizes=(3, 2, 1)),
    Case("a wide projection", ("lstm",), projection=11, sequences=1, steps=1),
)
PATHS = ("persistent", "step by step")


def _rows():
    """Rows of the table by cells, paths and dtypes: of the persistent kernels, which have code of
    their own for halves, three dtypes in turn, of the others two."""
    for number, case in enumerate(CASES):
        for i, cell in enumerate(case.cells):
            turn = number + i
            for path in PATHS[case.norm or case.projection is not None :]:
                dtypes = DTYPES[0], DTYPES[1 + turn % 3]
                if path == "persistent":
                    dtypes = DTYPES[0], DTYPES[2 + turn % 2], DTYPES[(1, 3, 2)[turn % 3]]
                for dtype in dict.fromkeys(dtypes):
                    name = f"{case}-{cell}-{path.replace(' ', '-')}-{dtype}"
                    yield pytest.param(case, cell, path, dtype, id=name)


def _operands(case: Case, cell: str, dtype: torch.dtype) -> dict:
    """The arguments of the contract's forward by their names."""
    generator = torch.Generator().manual_seed(len(case.reason) + CELLS.index(cell))
    lstm, H, B = cell == "lstm", case.hidden, case.sequences
    P, G = case.projection or H, GATES[cell]
    sizes = case.sizes or (B,) * case.steps
    S = sum(sizes)

    def normal(*shape, scale=1.0, level=0.0):
        values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + level
        return values.to(torch.bfloat16).to(dtype).to(DEVICE)

    def mask(*shape):
        return (torch.rand(shape, generator=generator) < 0.4).to(torch.uint8).to(DEVICE)

    masks = case.zone == "masks"
    return {
        "gates": normal(S, G * H),
        "weight_hh": normal(G * H, P, scale=P**-0.5),
        "bias_hh": normal(G * H) if case.bias else None,
        "h0": normal(B, P),
        "c0": normal(B, H) if lstm else None,
        "weight_hr": normal(P, H, scale=H**-0.5) if case.projection else None,
        "peephole": normal(3, H) if lstm and case.peephole else None,
        "norm": normal(G * H, scale=0.2, level=1) if case.norm else None,
        "norm_c": normal(H, scale=0.2, level=1) if case.norm and lstm else None,
        "bias_c": normal(H) if case.norm and lstm else None,
        "drop": 2 * mask(B, P).to(dtype) if case.drop else None,
        "zone_h": mask(S, P) if masks else None,
        "zone_c": mask(S, H) if masks and lstm else None,
        "batch_sizes": torch.tensor(case.sizes) if case.sizes else None,
        "cell": cell,
        "reverse": case.reverse,
        "zoneout_h": 0.25 if case.zone == "numbers" else 0.0,
        "zoneout_c": 0.5 if case.zone == "numbers" else 0.0,
        "eps": 1e-5,
    }


def _gradients(case: Case, operands: dict) -> dict:
    generator = torch.Generator().manual_seed(7)

    def normal(like, name):
        if like is None or name not in case.grads:
            return None
        values = torch.randn(like.shape, generator=generator, dtype=torch.float64)
        return values.to(torch.bfloat16).to(like)

    tokens = operands["gates"].shape[0], operands["h0"].shape[1]
    y = operands["gates"].new_empty(tokens)
    return {
        "grad_y": normal(y, "y"),
        "grad_h_n": normal(operands["h0"], "h"),
        "grad_c_n": normal(operands["c0"], "c"),
    }


def _double(given: dict) -> dict:
    return {
        name: value.double()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in given.items()
    }


SAVED = ("c", "activated", "normalised", "rstd", "unprojected")
FORWARD = ("y", "h_n", "c_n", *SAVED)
BACKWARD = (
    *("grad_gates", "grad_products", "grad_projected", "grad_h0", "grad_c0", "grad_peephole"),
    *("grad_norm", "grad_norm_c"),
)


def _forward(operands: dict, keep: bool = True) -> dict:
    results = backends.function("cuda", "rnn_forward")(*operands.values(), keep)
    return dict(zip(FORWARD, results, strict=True))


def _arguments_of_backward(operands: dict, gradients: dict, saved: dict) -> tuple:
    kept = [saved[name] for name in ("c", "activated", "normalised", "rstd")]
    kept = [None if t.numel() == 0 else t for t in kept]
    rest = [value for name, value in operands.items() if name not in ("gates", "bias_hh")]
    return *gradients.values(), saved["y"], *kept, *rest


def _backward(operands: dict, gradients: dict, saved: dict) -> dict:
    arguments = _arguments_of_backward(operands, gradients, saved)
    results = backends.function("cuda", "rnn_backward")(*arguments)
    return dict(zip(BACKWARD, results, strict=True))


def _reference(operands: dict, gradients: dict) -> tuple[dict, dict]:
    run = partial(backends.function, "reference")
    results = run("rnn_forward")(*operands.values(), True)
    forward = dict(zip(FORWARD, results, strict=True))
    backward = run("rnn_backward")(*_arguments_of_backward(operands, gradients, forward))
    return forward, dict(zip(BACKWARD, backward, strict=True))


def _hold(ours: dict, exact: dict, dtype: torch.dtype) -> None:
    for name, one in ours.items():
        if one.numel() == 0:
            continue
        units = {torch.float32: 64, torch.float64: 64}.get(dtype, 8)
        allowed = units * torch.finfo(dtype).eps * exact[name].abs().max().clamp(min=1)
        error = (one.double() - exact[name]).abs().max()
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


@contextlib.contextmanager
def _order(emulator, seed: int):
    """Runs emulated threads in this order; 0 is greedy, the only one where nothing is emulated."""
    if emulator is None:
        yield
        return
    before = emulator.order()
    emulator.set_order(seed)
    try:
        yield
    finally:
        emulator.set_order(before)


@contextlib.contextmanager
def _only(path: str):
    functions = native.library("cuda").functions
    functions.rnn_allow_persistent(path == "persistent")
    try:
        yield
    finally:
        functions.rnn_allow_persistent(True)


def _path(operands: dict, backward: bool) -> str:
    return native.library("cuda").functions.rnn_path(
        operands["weight_hh"],
        operands["cell"],
        operands["h0"].shape[0],
        operands["norm"] is not None,
        backward,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("case, cell, path, dtype", list(_rows()))
def test_both_passes_against_reference(case, cell, path, dtype):
    operands = _operands(case, cell, dtype)
    chosen = _path(operands, False), _path(operands, True)
    goes = "step by step: " if case.norm or case.projection else "persistent, "
    assert all(words.startswith(goes) for words in chosen)
    gradients = _gradients(case, operands)
    forward, backward = _reference(_double(operands), _double(gradients))
    with _only(path):
        ours = _forward(operands)
        _hold(ours, forward, dtype)
        saved = {name: value.to(ours[name].dtype) for name, value in forward.items()}
        _hold(_backward(operands, gradients, saved), backward, dtype)


def test_room_to_compute_in_is_checked(monkeypatch):
    operands = _operands(Case("short of room", ("lstm",)), "lstm", torch.float32)
    gradients = _gradients(CASES[0], operands)
    forward, _ = _reference(operands, gradients)
    monkeypatch.setattr("pydl.native.rnn.room", lambda *arguments: room(*arguments)[1:])
    with pytest.raises(ValueError, match="room for 220 sums to compute in, got 219"):
        _forward(operands)
    with pytest.raises(ValueError, match="room for 292 sums to compute in, got 291"):
        _backward(operands, gradients, forward)


def test_batch_sizes_that_grow_are_refused():
    operands = _operands(Case("packed", sequences=3, sizes=(3, 1, 2)), "gru", torch.float32)
    with pytest.raises(ValueError, match="begin with the number of sequences and never grow"):
        _forward(operands)


@pytest.mark.parametrize("cell", CELLS)
def test_both_paths_agree(cell):
    """In the order of the sums, that is: what float32 rounds otherwise stays in its last digits."""
    case = Case("both paths", sequences=9, sizes=PACKED, hidden=24, peephole=True, drop=True)
    operands = _operands(case, cell, torch.float32)
    gradients = _gradients(case, operands)
    results = []
    for path in PATHS:
        with _only(path):
            ours = _forward(operands)
            results.append(ours | _backward(operands, gradients, ours))
    one, other = results
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16), ids=str)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("path", PATHS)
def test_results_repeat_in_every_order_of_threads(path, cell, dtype):
    case = Case("orders", sequences=9, sizes=PACKED, hidden=32, zone="masks", reverse=True)
    operands = _operands(case, cell, dtype)
    gradients = _gradients(case, operands)
    functions = native.library("cuda").functions
    emulator = sys.modules.get(functions.__name__.rpartition(".")[0] + ".emulator")
    first = None
    with _only(path):
        for seed in (0, 1, 2) if emulator else (0, 0):
            with _order(emulator, seed):
                ours = _forward(operands)
                ours |= _backward(operands, gradients, ours)
            first = first or ours
            for name, value in ours.items():
                assert torch.equal(value, first[name]), (name, seed)


@pytest.mark.parametrize("path", PATHS)
def test_inference_keeps_nothing(path):
    for cell in CELLS:
        operands = _operands(Case("inference", hidden=16), cell, torch.float16)
        with _only(path):
            trained, inferred = _forward(operands), _forward(operands, keep=False)
        for name in ("y", "h_n", "c_n"):
            assert torch.equal(trained[name], inferred[name])
        assert all(inferred[name].numel() == 0 for name in SAVED)


@pytest.mark.parametrize("path", PATHS)
def test_an_infinite_state_ends_in_its_step(path):
    """Of the old state a step without zoneout keeps nothing, not 0 times it."""
    operands = _operands(Case("infinite"), "rnn_tanh", torch.float32)
    operands["h0"].fill_(torch.inf)
    operands["weight_hh"].abs_()
    with _only(path):
        ours = _forward(operands)
    assert (ours["y"][:3] == 1).all()
    results = backends.function("reference", "rnn_forward")(*_double(operands).values(), True)
    _hold(ours, dict(zip(FORWARD, results, strict=True)), torch.float32)


@pytest.mark.parametrize("path", PATHS)
def test_c_is_the_one_that_was_kept(path):
    """Not made again from gates that were rounded since: a gradient in float32 tells them apart."""
    case = Case("kept", ("lstm",), steps=1, peephole=True)
    operands = _operands(case, "lstm", torch.bfloat16)
    gradients = _gradients(case, operands)
    with _only(path):
        saved = _forward(operands)
        ours = _backward(operands, gradients, saved)["grad_peephole"]
    exact = backends.function("reference", "rnn_backward")(
        *_arguments_of_backward(*map(_double, (operands, gradients, saved)))
    )
    exact = dict(zip(BACKWARD, exact, strict=True))["grad_peephole"]
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "gru_reset_before"])
def test_a_step_that_keeps_nothing_and_one_of_no_sequences(cell):
    lstm, gru = cell == "lstm", cell == "gru"
    forward = backends.function("cuda", "rnn_cell_forward")
    backward = backends.function("cuda", "rnn_cell_backward")
    for rows in (3, 0):
        x, q = torch.randn(2, rows, GATES[cell] * 5, device=DEVICE)
        state = torch.randn(rows, 5, device=DEVICE)
        h, c = state if gru else None, state if lstm else None
        peephole = torch.randn(3, 5, device=DEVICE) if lstm else None
        kept = forward(x, q, h, c, peephole, cell, True)
        inferred = forward(x, q, h, c, peephole, cell, False)
        assert torch.equal(kept[0], inferred[0]) and torch.equal(kept[1], inferred[1])
        assert kept[0].shape == (rows, 5) and inferred[2].numel() == 0
    given = kept[2], h, c, kept[1] if lstm else None, peephole, cell
    grad_gates, *_, grad_peephole = backward(state, c, *given)
    assert grad_gates.shape == x.shape and not grad_peephole.any()


def _explain(cell: str, dtype: torch.dtype, hidden: int, backward: bool = False, **given) -> str:
    weight = torch.empty(
        1, GATES[cell] * hidden, given.get("state", hidden), dtype=dtype, device="meta"
    )
    return native.library("cuda").functions.rnn_path(
        weight, cell, given.get("sequences", 4), given.get("norm", False), backward
    )


@pytest.mark.skipif(DEVICE == "cuda", reason="of the emulated device")
def test_the_path_is_said():
    half, single, double = torch.float16, torch.float32, torch.float64
    assert _explain("lstm", half, 64) == (
        "persistent, 8 blocks of 8 units, 20736 bytes of shared memory each, tensor cores"
    )
    assert "tensor" not in _explain("lstm", half, 60)
    assert "tensor" not in _explain("lstm", single, 64)
    assert _explain("lstm", half, 64, True) == (
        "persistent, 8 blocks of 8 units, 9984 bytes of shared memory each, tensor cores"
    )
    assert _explain("gru", single, 3).startswith("persistent, 3 blocks of 1 units")
    assert _explain("lstm", single, 64, state=32) == "step by step: h is projected"
    assert _explain("gru", single, 64, norm=True) == "step by step: layer norm"
    assert _explain("rnn_tanh", single, 4096) == (
        "step by step: 8 blocks of 512 units have more rows than threads"
    )
    # As many rows as threads, and as much memory as there is.
    assert _explain("rnn_tanh", single, 2048).startswith("step by step: 8 blocks of 256 units want")
    assert _explain("lstm", single, 64, sequences=3312) == (
        "persistent, 8 blocks of 8 units, 232448 bytes of shared memory each"
    )
    for backward in (False, True):
        assert "bytes of shared memory each, the device has 232448" in _explain(
            "lstm", double, 256, backward
        )
        assert _explain("lstm", single, 64, backward, sequences=100_000).startswith("step by step")


@pytest.mark.parametrize("cell", ("lstm", "gru_reset_before"))
def test_weights_that_do_not_fit_go_step_by_step(cell):
    case = Case("too large", hidden=256, sequences=1, steps=1)
    operands = _operands(case, cell, torch.float64)
    gradients = _gradients(case, operands)
    forward, backward = _reference(operands, gradients)
    _hold(_forward(operands), forward, torch.float64)
    _hold(_backward(operands, gradients, forward), backward, torch.float64)


def test_threads_without_a_row():
    """A block's 33 units have 132 rows; the threads beyond, too few for the rows once more, have no
    sums to store."""
    case = Case("rows", hidden=260, sequences=1, steps=2, zone="numbers")
    operands = _operands(case, "lstm", torch.float32)
    assert _path(operands, False).startswith("persistent, 8 blocks of 33 units")
    forward, _ = _reference(_double(operands), _double(_gradients(case, operands)))
    _hold(_forward(operands), forward, torch.float32)


def test_rows_that_are_not_aligned_are_multiplied_without_tensor_cores(monkeypatch):
    operands = _operands(Case("unaligned", hidden=16), "gru", torch.float16)
    gradients = _gradients(CASES[0], operands)
    forward, backward = _reference(_double(operands), _double(gradients))
    saved = {name: value.to(torch.float16) for name, value in forward.items()}
    allocate = layout.empty

    def shifted(shape, like, **how):
        numbers = allocate((math.prod(shape) + 1,), like, **how)
        return numbers[1:].view(shape)

    monkeypatch.setattr(layout, "empty", shifted)
    _hold(_forward(operands), forward, torch.float16)
    _hold(_backward(operands, gradients, saved), backward, torch.float16)
