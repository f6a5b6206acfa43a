"""The figures under bench/results as documents tell them: every row with its family, its ratio,
and whether ``auto`` takes this package's kernel for that call today."""

import ast
import contextlib
import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from folders import RESULTS
from torch.nn.utils.rnn import pack_padded_sequence

from pydl import backends, dispatch, functional, nn
from pydl.bench.cases import CASES, Case
from pydl.models.calls import choosing

# By instruction set, as documents show them beside each other.
ISAS = {"AVX-512": RESULTS / "cpu-avx512", "AVX2": RESULTS / "cpu-avx2"}
CPU = ISAS["AVX-512"]
_CASES = {case.name: case for case in CASES}
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Question:
    """What an operator asked of ``backends.choose``, without the memory of its input."""

    kind: str
    function: str | None
    unit_stride: bool | None
    input: torch.Tensor  # on the meta device
    answer: str


@dataclass(frozen=True)
class Figure:
    """One measured row; ``ratio`` is PyTorch's time over ours."""

    file: str
    kind: str  # what the dispatch table decides on together: lrn, depthwise, ...
    operator: str
    case: str
    shape: str
    layout: str
    dtype: str
    threads: int
    step: str  # forward, both, grad_input, grad_weight
    ratio: float
    taken: bool  # by auto, as the dispatch table stands
    questions: tuple["Question", ...]  # that decide who serves it
    row: dict[str, str]
    folder: str = ""

    @property
    def ratio_compiled(self) -> float | None:
        """The time of PyTorch under ``torch.compile`` over ours, where it was measured."""
        ratio = self.row.get("ratio_compiled")
        return float(ratio) if ratio else None

    @property
    def path(self) -> str:
        return f"bench/results/{self.folder}/{self.file}"

    @property
    def family(self) -> str:
        """The family whose functions serve it: the name of the operator's module."""
        return getattr(functional, self.operator).__module__.rpartition(".")[2]


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def every(folder: Path = CPU) -> list[Figure]:
    """All figures of layers, of all files of a folder; those of ``overhead.csv`` are of another
    sort."""
    found: list[Figure] = []
    # What auto would take on that machine, where the extension is built.
    backends.BACKENDS["cpu"].missing = None
    dispatch.use("cpu", dispatch.read(folder.name))
    try:
        for path in sorted(folder.glob("*.csv")):
            rows = read(path)
            if rows and "kind" in rows[0]:
                found += [_of_case(path, row) for row in rows if row["ratio"]]
            elif rows and "ours_us" in rows[0] and "pass" in rows[0]:
                found += [_of_layer(path, row) for row in rows]
    finally:
        dispatch.reload()
    return found


def _of_case(file: Path, row: dict[str, str]) -> Figure:
    case, batch = _CASES[row["case"]], int(row["shape"].partition("x")[0])
    asked = _answers(case, batch, row["layout"], row["dtype"], row["kind"] != "forward")
    asked = asked if row["kind"] == "both" else asked[_WHICH[row["kind"]] :][:1] or asked[:1]
    return Figure(
        file.name,
        case.family,
        *(row[name] for name in ("operator", "case", "shape", "layout", "dtype")),
        int(row["threads"]),
        row["kind"],
        float(row["ratio"]),
        "cpu" in [one.answer for one in asked],
        tuple(asked),
        row,
        file.parent.name,
    )


# Which of its questions an operator asks for a pass alone, if it asks for each pass apart.
_WHICH = {"forward": 0, "grad_input": 1, "grad_weight": 2, "backward": 1}


def _answers(case: Case, batch: int, layout: str, dtype: str, training: bool) -> list[Question]:
    """Who serves a case under ``auto``: one answer or, where passes are chosen apart, three."""
    call = case.call(batch if case.boxes is None else None)
    tensors = call.empty(dtype=getattr(torch, dtype))
    if layout == "channels_last":
        plain = torch.contiguous_format
        tensors = [t.contiguous(memory_format=_FORMATS.get(t.ndim, plain)) for t in tensors]
    for tensor in tensors:
        tensor.requires_grad_(training and tensor.is_floating_point())
    with torch.set_grad_enabled(training):
        return _asked(lambda: call.ours(tensors, "auto"), 3 if case.family == "depthwise" else 1)


class _AnsweredError(Exception):
    """All was asked; nothing is to be computed."""


def _asked(call: Callable[[], object], questions: int) -> list[Question]:
    """What is asked of ``backends.choose`` while ``call`` runs, until it was asked so often."""
    seen: list[Question] = []

    def see(answer: str, kind: str, x: torch.Tensor, rest: tuple) -> str | None:
        seen.append(Question(kind, *rest, x.to("meta"), answer))
        if len(seen) == questions:
            raise _AnsweredError
        # Where PyTorch serves the first pass, no more is asked; ours was measured in all of them.
        return "cpu" if questions > 1 else None

    # Operators ask nothing that is below all rows, unless calls are known one by one.
    dispatch.exactly = True
    try:
        with contextlib.suppress(_AnsweredError), choosing(see):
            call()
    finally:
        dispatch.watch(dispatch.on_miss)
    return seen


def _of_layer(file: Path, row: dict[str, str]) -> Figure:
    """A row of bench/rnn.py, whose case is ``LSTM-64x32x256,peephole=True,float32``, or of a cell
    ``LSTMCell-1x32x256,float32``."""
    name, *options, dtype = row["case"].split(",")
    layer, _, shape = name.partition("-")
    steps, sequences, units = map(int, shape.split("x"))
    pairs = (option.split("=") for option in options if "=" in option)
    given = {key: ast.literal_eval(value) for key, value in pairs}
    module = getattr(nn, layer)(units, units, **given, dtype=getattr(torch, dtype)).eval()
    x = torch.empty(steps, sequences, units, dtype=getattr(torch, dtype))
    cell = isinstance(module, torch.nn.RNNCellBase)
    x = x[0] if cell else x
    if "packed" in options:
        x = pack_padded_sequence(x, torch.full((sequences,), steps))
    with torch.set_grad_enabled(row["pass"] != "forward"):
        (question,) = _asked(lambda: module(x), 1)
    return Figure(
        file.name,
        "rnn_cell" if cell else "rnn_own" if row["against"] == "loop" else "rnn",
        f"{layer[:-4].lower()}_cell" if cell else layer.lower(),
        row["case"],
        shape,
        "nchw",
        dtype,
        int(row["threads"]),
        {"forward": "forward"}.get(row["pass"], "both"),
        float(row["ratio"]),
        question.answer == "cpu",
        (question,),
        row,
        file.parent.name,
    )


def shown(ratio: float) -> str:
    """A ratio to two digits or so."""
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def span(figures: Iterable[Figure], compiled: bool = False) -> str:
    """The lowest and the highest ratio; empty for no figures. Of ``compiled``, to PyTorch under
    ``torch.compile``."""
    of = (figure.ratio_compiled if compiled else figure.ratio for figure in figures)
    ratios = sorted(ratio for ratio in of if ratio is not None)
    if not ratios:
        return ""
    low, high = shown(ratios[0]), shown(ratios[-1])
    return f"{low}x" if low == high else f"{low} to {high}x"


def plain(figures: Iterable[Figure]) -> list[Figure]:
    """What one table can compare: float32, contiguous, one thread, each case once.

    Where two files have the same case, the row in which a kernel here ran is kept, then the first.
    """
    kept: dict[tuple[str, str, str, str], Figure] = {}
    for figure in figures:
        if (figure.dtype, figure.layout, figure.threads) != ("float32", "nchw", 1):
            continue
        key = figure.kind, figure.case, figure.shape, figure.step
        other = kept.get(key)
        if other is None or (other.row["backend"] == "aten") > (figure.row["backend"] == "aten"):
            kept[key] = figure
    return list(kept.values())


def by_kind(figures: Iterable[Figure]) -> dict[str, list[Figure]]:
    """By what the dispatch table decides on together, in the order of ``backends.FAMILIES``."""
    order = list(backends.FAMILIES)
    found: dict[str, list[Figure]] = {}
    for figure in sorted(figures, key=lambda f: (order.index(f.family), f.kind)):
        found.setdefault(figure.kind, []).append(figure)
    return found


def setting(rows: Sequence[dict[str, str]]) -> str:
    """Processor, instruction set and PyTorch of some rows, in words."""
    devices = " and ".join(sorted({row["device"] for row in rows}))
    torches = " and ".join(sorted({row["torch"] for row in rows}))
    isas = sorted({row["pydl_isa"] for row in rows if row.get("pydl_isa")})
    isas = [isa.upper().replace("AVX5", "AVX-5") for isa in isas]
    return ", ".join([devices, *([" and ".join(isas)] if isas else []), f"PyTorch {torches}"])
