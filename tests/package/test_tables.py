"""The tables that ``auto`` goes by: the rule that makes them, the files, and how they are asked."""

import json
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch

import pydl
from pydl import backends, dispatch, functional, swap

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import tables  # noqa: E402

GROUP = ("pool", "max_pool_forward", torch.float32, False, None, False)
X = torch.randn(2, 4, 9, 9)


def measurement(elements: int, plane: int, ratio: float, noise: float = 0.0, group: tuple = GROUP):
    return tables.Measurement(group, elements, plane, ratio, noise, "cpu", "file.csv")


@pytest.mark.parametrize(
    ("measured", "bounds"),
    [
        ([(100, 10, 2.0), (1000, 10, 3.0)], (100, 10)),
        ([(100, 10, 0.9), (1000, 10, 3.0), (2000, 10, 3.0)], (1000, 10)),
        # Lost among the largest: nothing is said of what is larger still.
        ([(100, 10, 2.0), (1000, 10, 0.9)], None),
        # Small planes lose however many there are.
        ([(1000, 4, 0.5), (9000, 4, 0.6), (100, 16, 2.0), (1000, 16, 2.0)], (100, 16)),
        # Of two classes, the one with more in it.
        ([(100, 16, 2.0), (200, 4, 0.5), (300, 4, 2.0), (400, 4, 2.0)], (300, 4)),
        # One is no class, nor are two that win by no more than the noise.
        ([(100, 10, 3.0)], None),
        ([(100, 10, 1.01), (200, 10, 1.01)], None),
        ([], None),
    ],
)
def test_ours_serves_the_class_in_which_it_lost_nothing(measured, bounds) -> None:
    rows = tables.rows_of(measurement(*one) for one in measured)
    assert [(row.least, row.least_plane) for row in rows] == ([] if bounds is None else [bounds])


def test_a_win_is_more_than_the_noise() -> None:
    assert tables.rows_of([measurement(size, 10, 1.3, noise=0.5) for size in (1, 2)]) == []
    # What neither wins nor loses keeps nothing from being served.
    ratios = ((100, 2.0, 0.0), (200, 1.05, 0.1), (300, 2.0, 0.0))
    rows = tables.rows_of(measurement(size, 10, ratio, noise) for size, ratio, noise in ratios)
    assert [row.least for row in rows] == [100]


def test_each_layout_dtype_pass_and_function_is_decided_apart() -> None:
    family, function, dtype, last, unit, training = GROUP
    others = (
        (family, "avg_pool_forward", dtype, last, unit, training),
        (family, function, torch.float16, last, unit, training),
        (family, function, dtype, True, unit, training),
        (family, function, dtype, last, unit, True),
        ("pool3d", function, dtype, last, unit, training),
    )
    lost = [measurement(1000, 10, 0.5, group=group) for group in others]
    (row,) = tables.rows_of([measurement(100, 10, 2.0), measurement(200, 10, 2.0), *lost])
    said = (row.family, row.function, row.dtype, row.channels_last, row.unit_stride, row.training)
    assert said == GROUP and row.evidence == "file.csv: 2 won, 2.0 to 2.0x"


def test_the_tables_are_what_the_figures_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tables.py", "--check"])
    assert tables.main() == 0


@pytest.mark.parametrize("kind", ("cpu-avx512", "cpu-avx2"))
def test_every_row_names_its_measurements(kind: str) -> None:
    table = json.loads((dispatch.TABLES / f"{kind}.json").read_text())
    rows = dispatch.read(kind)
    assert len(rows) == len(table["rows"]) > 50 and table["measured on"]
    for row in rows:
        files = row.evidence.partition(":")[0].split(" and ")
        assert all((ROOT / file).is_file() for file in files), row.evidence
        assert row.family in backends.BACKENDS["aten"].families


@pytest.fixture
def rows() -> None:
    """A table of a known few rows."""
    dispatch.use(
        "cpu",
        [
            dispatch.Row("pool", torch.float32, "cpu", "a", training=False, least=600),
            dispatch.Row("pool", torch.float32, "cuda", "b", training=True, least_plane=50),
            dispatch.Row("lrn", torch.float16, "cpu", "c", channels_last=True),
        ],
    )


@pytest.mark.usefixtures("rows")
def test_auto_goes_by_the_table() -> None:
    def served(x: torch.Tensor) -> str:
        return backends.choose("pool", None, x, "max_pool_forward")

    wanting = X.clone().requires_grad_()
    assert served(X) == "cpu" and served(X[:1]) == "aten"
    assert served(wanting) == "cuda" and served(wanting[..., :5]) == "aten"
    with torch.no_grad():
        assert served(wanting) == "cpu"
    assert served(X.double()) == "aten"
    last = X.half().contiguous(memory_format=torch.channels_last)
    assert backends.choose("lrn", None, last) == "cpu"
    assert backends.choose("lrn", None, X.half()) == "aten"
    # PyTorch has no backward of this one's name: the pass was chosen whole.
    functional.max_pool2d(wanting, 3).sum().backward()
    torch.testing.assert_close(
        wanting.grad,
        torch.autograd.grad(torch.nn.functional.max_pool2d(wanting, 3).sum(), wanting)[0],
    )


def test_what_is_within_no_bounds_is_pytorchs_by_the_whole_table() -> None:
    """On both sides of each row's least size, in each layout, dtype and mode."""
    left = Counter()
    for row in set(dispatch.used("cpu")):
        bounds = [
            dispatch.bounds(row.family),
            dispatch.bounds(row.family, "unpool", function=row.function),
        ]
        least = max(row.least, row.least_plane, 64)
        for elements, last, grad in product((least // 2, 2 * least), (False, True), (False, True)):
            if elements > 4_000_000:
                continue
            layout = torch.channels_last if last else torch.contiguous_format
            x = torch.empty(1, 4, 4, elements // 16, dtype=row.dtype).to(memory_format=layout)
            with torch.set_grad_enabled(grad):
                found = backends.choose(row.family, "auto", x, row.function, row.unit_stride)
                for one in bounds:
                    if dispatch.is_pytorchs(one, x):
                        assert found == "aten", row
                        left[row.family] += 1
    assert {"depthwise", "pool", "batch_norm_act"} <= set(left)


def test_bounds_follow_the_table() -> None:
    of_a_kind, of_none = dispatch.bounds("lrn"), dispatch.bounds("nms")
    assert dispatch.bounds("lrn") is of_a_kind and of_none == {}
    try:
        row = dispatch.Row("lrn", torch.float16, "cpu", "a", least=100, training=True)
        dispatch.use("cpu", [row])
        assert of_a_kind[torch.float16] == (100, {dispatch.Bound(100, None, True)})
        assert torch.float32 not in of_a_kind
        x = torch.empty(1, 4, 5, 5, dtype=torch.float16)
        assert not dispatch.is_pytorchs(of_a_kind, x) and dispatch.is_pytorchs(of_a_kind, x[:, :3])
        with torch.no_grad():
            assert dispatch.is_pytorchs(of_a_kind, x)
    finally:
        dispatch.reload()
    assert torch.float16 not in of_a_kind or of_a_kind[torch.float16][0] != 100


@pytest.mark.usefixtures("rows")
def test_a_graph_without_sizes_asks_the_table_when_it_runs() -> None:
    question = backends._question("pool", X.requires_grad_(False), None)
    assert question == "auto:pool::"
    assert backends.at_run_time(question, "max_pool_forward", (X,)) == "cpu"
    assert backends.at_run_time("auto:pool::training", "max_pool_forward", (X,)) == "cuda"


def test_a_kind_of_machine_without_a_table_is_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from pydl_cli import app

    monkeypatch.setattr(dispatch, "machine", lambda device="cpu": "cpu-vector9000")
    dispatch.reload()
    assert backends.choose("pool", None, torch.empty(16, 96, 55, 55)) == "aten"
    for command in (["info"], ["explain", "pool", "--shape", "16x96x55x55"]):
        said = " ".join(CliRunner().invoke(app, command).output.replace("│", " ").split())
        assert "table for cpu-vector9000" in said and "`pydl tune`" in said


def test_accelerate_says_that_nobody_has_measured_such_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "machine", lambda device="cpu": "cpu-vector9000")
    dispatch.reload()
    swap._warn_where_nothing_is_ours.cache_clear()
    with pytest.warns(UserWarning, match="there is no table for cpu-vector9000; `pydl tune`"):
        pydl.accelerate(torch.nn.Sequential(torch.nn.MaxPool2d(2)))
    swap._warn_where_nothing_is_ours.cache_clear()


def test_the_instruction_set_in_use_decides_which_table() -> None:
    from pydl import native

    before = native.library("cpu").functions.isa()
    try:
        for isa in native.library("cpu").functions.built_isas():
            try:
                native.use_isa(isa)
            except ValueError:
                continue  # this processor has it not
            assert dispatch.machine() == f"cpu-{isa}"
            rows = len(dispatch.read(f"cpu-{isa}")) + len(dispatch.LACKING)
            assert len(set(dispatch.used())) == rows
    finally:
        native.use_isa(before)


def test_the_first_call_on_a_gpu_reads_what_is_known_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, asked = torch.device("cuda", 0), []
    monkeypatch.setattr(dispatch, "_gpus", set())
    monkeypatch.setattr(dispatch, "machine", lambda device: "sm_90")
    monkeypatch.setattr(dispatch, "on_gpu", asked.append)
    row = dispatch.Row("lrn", torch.float32, "triton", "a")
    monkeypatch.setattr(dispatch, "read", lambda kind: [row] if kind == "sm_90" else [])
    try:
        dispatch.use_gpu(gpu)
        dispatch.use_gpu(gpu)
        assert asked == [gpu] and set(dispatch.AUTO["cuda", "lrn"].values()) == {(row,)}
    finally:
        dispatch.use("cuda", [])
    assert ("cuda", "lrn") not in dispatch.AUTO


def test_a_graph_does_not_hold_how_a_gpu_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_gpus", set())
    monkeypatch.setattr(dispatch, "machine", lambda device: "sm_90")

    def call(x: torch.Tensor) -> torch.Tensor:
        dispatch.use_gpu(x.device)
        return x + 1

    assert torch.equal(torch.compile(call, fullgraph=True, backend="eager")(X), X + 1)
    assert len(dispatch._gpus) == 1
