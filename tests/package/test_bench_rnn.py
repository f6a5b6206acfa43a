"""The benchmark of recurrent layers: its cells, what the table maker reads of their rows, and what
``auto`` makes of that."""

import csv
import math
import sys
from pathlib import Path

import pytest
import torch

from pydl import backends, dispatch, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import figures  # noqa: E402
import rnn  # noqa: E402
import tables  # noqa: E402

CELLS = [rnn.Case(layer, (1, 2, 8)) for layer in ("RNNCell", "LSTMCell", "GRUCell")]
LAYERS = [rnn.Case("GRU", (3, 2, 8)), rnn.Case("LSTM", (8, 2, 8), packed=True)]
LAYERS += [rnn.Case("GRU", (3, 2, 8), {"reset_after": False}, own=True)]
KINDS = [*["rnn_cell"] * 3, "rnn_short", "rnn", "rnn_own"]
FUNCTIONS = {"RNNCell": "rnn_cell", "LSTMCell": "lstm_cell", "GRUCell": "gru_cell"}


def test_cells_are_measured_as_decoders_call_them() -> None:
    shapes = {(1, rows, units) for rows in (1, 8, 32) for units in (64, 256, 512)}
    for layer in FUNCTIONS:
        assert {one.shape for one in rnn.CELLS if one.layer == layer} == shapes
    assert set(map(str, rnn.CELLS)) <= set(map(str, rnn.CPU_CASES))


@pytest.mark.parametrize(
    ("case", "kind"), list(zip(CELLS + LAYERS, KINDS, strict=True)), ids=map(str, CELLS + LAYERS)
)
def test_a_row_for_each_pass(case, kind, tmp_path) -> None:
    rows = rnn.times(case, 0.001, "cpu", "cpu")
    assert [row["pass"] for row in rows] == ["forward", "forward+backward"]
    rnn.write_table(rows[0], rows, tmp_path / "rnn-1.csv")
    with (tmp_path / "rnn-1.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    for row, training in zip(read, (False, True), strict=True):
        assert float(row["ours_us"]) > 0 and float(row["products_us"]) > 0
        figure = figures._of_layer(tmp_path / "rnn-1.csv", row)
        (measured,) = tables.measured(figure)
        assert measured.ratio == float(row["ratio"]) and figure.family == "rnn"
        assert measured.elements == math.prod(case.shape)
        asked, function, dtype, _, _, trains = measured.group
        assert (asked, function, dtype) == (kind, FUNCTIONS.get(case.layer), torch.float32)
        assert trains is training


def test_what_differs_from_torch_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = torch.nn.GRUCell.forward
    monkeypatch.setattr(torch.nn.GRUCell, "forward", lambda *given: forward(*given) + 0.01)
    with pytest.raises(AssertionError, match="not close"):
        rnn.times(CELLS[2], 0.001, "cpu", "cpu")


def test_each_kind_of_cell_is_decided_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for one of them leaves the others, and what is smaller, to PyTorch at once."""
    row = dispatch.Row("rnn_cell", torch.float32, "cpu", "a", function="gru_cell", least=64)
    asked, choose = [], backends.choose

    def seen(*given: object, **named: object) -> str:
        asked.append(choose(*given, **named))
        return asked[-1]

    monkeypatch.setattr(backends, "choose", seen)
    dispatch.use("cpu", [row])
    try:
        for layer, function in FUNCTIONS.items():
            for sequences in (2, 8):
                module, x = getattr(nn, layer)(8, 8), torch.randn(sequences, 8)
                with torch.no_grad():
                    module(x)
                found = choose("rnn_cell", None, x, function)
                assert found == ("cpu" if layer == "GRUCell" and sequences == 8 else "aten")
    finally:
        dispatch.reload()
    assert asked == ["cpu"]
