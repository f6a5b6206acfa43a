"""The CUDA kernels of recurrent layers against the reference: both paths, every cell and option."""

import contextlib
from dataclasses import dataclass

import pytest
import torch

from pydl import layout, native
from pydl.reference import rnn as reference

CELLS = ("rnn_tanh", "rnn_relu", "lstm", "gru", "gru_reset_before")
GATES = dict(zip(CELLS, (1, 1, 4, 3, 3), strict=True))
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
    Case("layer norm of a row longer than a block", ("lstm", "gru"), norm=True, hidden=300),
)
PATHS = ("persistent", "step by step")
ROWS = [
    pytest.param(case, cell, path, id=f"{case}-{cell}-{path.replace(' ', '-')}")
    for case in CASES
    for cell in case.cells
    for path in PATHS[case.norm or case.projection is not None :]
]


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


WEIGHTS = (
    *("weight_hh", "bias_hh", "h0", "c0", "weight_hr", "peephole", "norm", "norm_c", "bias_c"),
    *("drop", "zone_h", "zone_c", "batch_sizes"),
)
KIND = ("reverse", "zoneout_h", "zoneout_c", "eps")
SAVED = ("c", "activated", "normalised", "rstd", "unprojected")
FORWARD = ("y", "h_n", "c_n", *SAVED)
BACKWARD = (
    *("grad_gates", "grad_products", "grad_projected", "grad_h0", "grad_c0", "grad_peephole"),
    *("grad_norm", "grad_norm_c"),
)


def _like(results, operands: dict) -> list:
    """Unwritten results of the shapes of the reference's."""
    dtype = operands["gates"].dtype
    sums = layout.sums_dtype(operands["gates"])
    return [
        layout.empty(r.shape, operands["gates"], dtype=sums if name in SUMS else dtype)
        for name, r in results.items()
    ]


SUMS = ("c", "rstd", "grad_peephole", "grad_norm", "grad_norm_c")


def _work(operands: dict, backward: bool, short: int = 0):
    columns, B = operands["weight_hh"].shape[0], operands["h0"].shape[0]
    G = GATES[operands["cell"]]
    extra = 3 * (operands["peephole"] is not None) + (2 * G + 2) * (operands["norm"] is not None)
    sizes = operands["batch_sizes"]
    steps = operands["gates"].shape[0] // B if sizes is None else len(sizes)
    numbers = steps + B * (G + (4 + extra if backward else 2)) * (columns // G)
    sums = layout.sums_dtype(operands["gates"])
    return layout.empty((numbers - short,), operands["gates"], dtype=sums)


def _matrix(t):
    return t if t is None or t.ndim < 2 else t[None]


def _filled(t):
    return None if t is None or t.numel() == 0 else _matrix(t)


def _forward(operands: dict, results: dict, short: int = 0) -> dict:
    out = _like(results, operands)
    library = native.library("cuda")
    library.call(
        "rnn_forward",
        _filled(operands["gates"]),
        [_matrix(operands[name]) for name in WEIGHTS],
        [t[None] if i == 0 else _filled(t) for i, t in enumerate(out)],
        _work(operands, False, short),
        CELLS.index(operands["cell"]),
        *(operands[name] for name in KIND),
        on=operands["gates"],
    )
    return dict(zip(results, out, strict=True))


def _backward(operands: dict, gradients: dict, saved: dict, results: dict, short: int = 0) -> dict:
    out = _like(results, operands)
    native.library("cuda").call(
        "rnn_backward",
        [_filled(gradients[name]) for name in ("grad_y", "grad_h_n", "grad_c_n")],
        [_matrix(operands[name]) for name in WEIGHTS],
        [saved["y"][None], *(_filled(saved[name]) for name in SAVED)],
        [_filled(t) for t in out],
        _work(operands, True, short),
        CELLS.index(operands["cell"]),
        *(operands[name] for name in KIND),
        on=operands["gates"],
    )
    return dict(zip(results, out, strict=True))


def _reference(operands: dict, gradients: dict, keep: bool = True) -> tuple[dict, dict]:
    forward = reference.rnn_forward(*operands.values(), keep)
    y, _, _, c, activated, normalised, rstd, _ = forward
    weights = {name: value for name, value in operands.items() if name not in ("gates", "bias_hh")}
    saved = [None if t.numel() == 0 else t for t in (c, activated, normalised, rstd)]
    saved[1] = activated
    backward = reference.rnn_backward(*gradients.values(), y, *saved, *weights.values())
    return dict(zip(FORWARD, forward, strict=True)), dict(zip(BACKWARD, backward, strict=True))


def _hold(ours: dict, exact: dict, dtype: torch.dtype) -> None:
    for name, one in ours.items():
        if one.numel() == 0:
            continue
        units = {torch.float32: 64, torch.float64: 64}.get(dtype, 8)
        allowed = units * torch.finfo(dtype).eps * exact[name].abs().max().clamp(min=1)
        error = (one.double() - exact[name]).abs().max()
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}"


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
        operands["weight_hh"][None],
        CELLS.index(operands["cell"]),
        operands["h0"].shape[0],
        operands["norm"] is not None,
        backward,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case, cell, path", ROWS)
def test_both_passes_against_reference(case, cell, path, dtype):
    operands = _operands(case, cell, dtype)
    chosen = _path(operands, False), _path(operands, True)
    goes = "step by step: " if case.norm or case.projection else "persistent, "
    assert all(words.startswith(goes) for words in chosen)
    gradients = _gradients(case, operands)
    forward, backward = _reference(_double(operands), _double(gradients))
    with _only(path):
        ours = _forward(operands, forward)
        _hold(ours, forward, dtype)
        saved = {name: value.to(ours[name].dtype) for name, value in forward.items()}
        _hold(_backward(operands, gradients, saved, backward), backward, dtype)


def test_room_to_compute_in_is_checked():
    case = Case("short of room", ("lstm",))
    operands = _operands(case, "lstm", torch.float32)
    gradients = _gradients(case, operands)
    forward, backward = _reference(operands, gradients)
    with pytest.raises(ValueError, match="room for 220 sums to compute in, got 219"):
        _forward(operands, forward, short=1)
    with pytest.raises(ValueError, match="room for 292 sums to compute in, got 291"):
        _backward(operands, gradients, forward, backward, short=1)


def test_batch_sizes_that_grow_are_refused():
    operands = _operands(Case("packed", sequences=3, sizes=(3, 1, 2)), "gru", torch.float32)
    forward = dict.fromkeys(FORWARD, operands["gates"])
    with pytest.raises(ValueError, match="batch_sizes grow to 2 at step 2"):
        _forward(operands, forward)
