"""The benchmark itself: its table against the models, its clock, and what it does with wrong and
broken cases."""

import csv
import inspect
import os
import sys
import time
from pathlib import Path

import pytest
import torch

from pydl import functional, measure, models, native
from pydl.bench import cases, conv_cases, options, run
from pydl.models.calls import Call, check
from pydl.models.layer_calls import layer_calls

pytestmark = pytest.mark.usefixtures("unpinned")


def benchmark(out: Path, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    """Exit status and rows of a quick run."""
    status = run.main(["--seconds", "0.005", "--out", str(out), *arguments])
    with (out / "results.csv").open(encoding="utf-8") as file:
        return status, list(csv.DictReader(file))


@pytest.mark.parametrize(
    "name",
    sorted({case.name.partition(".")[0] for case in cases.CASES} & set(models.MODELS)),
)
def test_cases_are_the_calls_of_their_models(name: str) -> None:
    table = {
        case.name.partition(".")[2]: case
        for case in cases.CASES
        if case.name.startswith(f"{name}.")
    }
    with torch.device("meta"):
        calls = layer_calls(models.build(name), torch.zeros(2, *models.MODELS[name].input))
    for layer, case in table.items():
        if not case.substitute:
            assert case.call(2) == calls[layer][0], case.name


def test_names_are_unique_and_described() -> None:
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)
    assert all(case.about for case in cases.CASES)
    assert set(cases.FAMILY) == {case.operator for case in cases.CASES}


def test_a_case_without_a_model_fits_together() -> None:
    """Both sides take its tensors and arguments, and the counts are the papers'."""
    for case in cases.CASES:
        assert case.substitute or case.name.partition(".")[0] in models.MODELS
        call = case.call(1)
        tensors = call.empty(device="meta")
        ours = getattr(functional, case.operator)
        inspect.signature(ours).bind(**call.named(tensors), **case.arguments)
        theirs = getattr(torch.nn.functional, case.operator, None)
        if theirs is not None:
            theirs(**call.named(tensors), **case.arguments)
    distinct = {
        model: len({(tuple(row[1]), tuple(row[2]), str(row[3])) for row in rows})
        for model, rows in conv_cases.MODELS.items()
    }
    assert (distinct["vgg16"], distinct["resnet50"], distinct["c3d"]) == (9, 23, 7)


def test_memory_kept_for_backward() -> None:
    """One byte per maximum where PyTorch keeps eight, nothing for LRN where PyTorch keeps its
    intermediate maps; the operands themselves do not count."""
    calls = {
        "max_pool2d": Call("max_pool2d", (2, 3, 9, 9), arguments={"kernel_size": 3}),
        "local_response_norm": Call("local_response_norm", (2, 3, 9, 9), arguments={"size": 5}),
    }
    kept = {}
    for name, call in calls.items():
        tensors = call.random()
        kept[name] = [
            call.kept(who, tensors) for who in (lambda t, c=call: c.ours(t, "cpu"), call.theirs)
        ]
    assert kept["max_pool2d"] == [2 * 3 * 9, 8 * 2 * 3 * 9]
    assert kept["local_response_norm"][0] == 0 < kept["local_response_norm"][1]


def test_the_target_shape_is_measured() -> None:
    goals = {
        (case.operator, case.call().input): dict(case.goal) for case in cases.CASES if case.goal
    }
    shape = (16, 96, 55, 55)
    assert goals["local_response_norm", shape] == {"forward": 25, "both": 30}
    assert goals["max_pool2d", shape] == {"forward": 20, "both": 8}
    assert goals["avg_pool2d", shape] == {"forward": 7}


def test_quantiles() -> None:
    times = measure.Times.of([5.0, 1.0, 3.0, 2.0, 4.0, 6.0])
    assert (times.minimum, times.p20, times.median, times.p80, times.samples) == (1, 2, 3.5, 5, 6)


def test_interleaving_takes_turns_and_tells_fast_from_slow() -> None:
    order: list[str] = []

    def action(name: str, seconds: float):
        def act() -> None:
            order.append(name)
            time.sleep(seconds)

        return act

    times = measure.interleave(
        {"a": action("a", 2e-3), "b": action("b", 6e-3)}, seconds=0.01, rounds=(5, 5)
    )
    assert 1.5 < times["b"].minimum / times["a"].minimum < 4
    assert times["a"].samples == times["b"].samples == 5
    turns = order[-10:]
    assert turns == ["a", "b", "b", "a", "a", "b", "b", "a", "a", "b"]


def test_the_processor_s_clock_does_not_go_on_while_a_call_waits() -> None:
    waits = {"a": lambda: time.sleep(2e-3)}
    times = measure.interleave(waits, seconds=0.01, rounds=(3, 3), clock=time.thread_time)["a"]
    assert 0 < times.median < 1e-3


def test_interleaving_nothing_or_nowhere_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to time"):
        measure.interleave({})
    with pytest.raises(ValueError, match="device must be cpu or cuda, got meta"):
        measure.interleave({"a": int}, device="meta")


def test_a_run_leaves_rows_a_table_and_a_plot(tmp_path: Path) -> None:
    status, rows = benchmark(
        tmp_path, "--cases", "lenet5.pool?", "--batch", "1,2", "--passes", "forward,both,backward"
    )
    assert status == 0
    assert [(row["case"], row["kind"], row["shape"]) for row in rows] == [
        (f"lenet5.pool{i}", kind, f"{batch}x{shape}")
        for batch in (1, 2)
        for i, shape in ((1, "6x28x28"), (2, "16x10x10"))
        for kind in ("forward", "both", "backward")
    ]
    for row in rows:
        assert row["status"] == "ok" and row["torch"] == torch.__version__ and row["threads"] == "1"
        assert float(row["ratio"]) == pytest.approx(
            float(row["theirs_minimum"]) / float(row["ours_minimum"]), rel=2e-3
        )
        assert float(row["copies"]) == pytest.approx(
            float(row["ours_minimum"]) / float(row["copy_minimum"]), rel=2e-3
        )
        assert (
            float(row["ours_minimum"])
            <= float(row["ours_p20"])
            <= float(row["ours_median"])
            <= float(row["ours_p80"])
        )
    assert (tmp_path / "results.md").read_text(encoding="utf-8").count("| lenet5.pool") == len(rows)
    pytest.importorskip("matplotlib")
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("layout", "dtype"), [("channels_last", "float32"), ("nchw", "bfloat16"), ("nchw", "float64")]
)
def test_layouts_and_dtypes(tmp_path: Path, layout: str, dtype: str) -> None:
    chosen = (
        "--cases",
        "lenet5.conv2,lenet5-1998.pool2",
        "--batch",
        "2",
        "--layout",
        layout,
        "--dtype",
        dtype,
    )
    status, rows = benchmark(tmp_path, *chosen)
    assert (
        status == 0
        and {row["layout"] for row in rows} == {layout}
        and {row["dtype"] for row in rows} == {dtype}
    )


def test_what_is_compiled_is_timed_beside(tmp_path: Path) -> None:
    chosen = ("--cases", "lenet5.pool2", "--passes", "forward,both,backward", "--compile")
    status, rows = benchmark(tmp_path, *chosen)
    assert status == 0
    *whole, alone = rows
    for row in whole:
        assert float(row["ratio_compiled"]) == pytest.approx(
            float(row["compiled_minimum"]) / float(row["ours_minimum"]), rel=2e-3
        )
    assert alone["kind"] == "backward" and alone["ratio_compiled"] == ""


def test_what_is_compiled_wrongly_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_one(function, **_: object):
        return lambda tensors: function(tensors) + 1

    monkeypatch.setattr(torch, "compile", off_by_one)
    status, (row,) = benchmark(
        tmp_path, "--cases", "lenet5.pool2", "--passes", "forward", "--compile"
    )
    assert status == 0 and row["ratio"] and row["ratio_compiled"] == ""
    assert row["detail"].startswith("torch.compile: AssertionError: Tensor-likes are not close")


def test_gradients_apart_where_there_are_any(tmp_path: Path) -> None:
    chosen = (
        "--cases",
        "lenet5.conv2,lenet5.pool2",
        "--batch",
        "1",
        "--passes",
        "grad_input,grad_weight",
    )
    status, rows = benchmark(tmp_path, *chosen)
    assert status == 0
    assert [(row["case"], row["kind"]) for row in rows] == [
        ("lenet5.conv2", "grad_input"),
        ("lenet5.conv2", "grad_weight"),
        ("lenet5.pool2", "grad_input"),
    ]


def spoil(monkeypatch: pytest.MonkeyPatch, change) -> None:
    """Let the first pool of LeNet-5 go wrong when this package computes it."""
    right = Call.ours

    def ours(call: Call, tensors: list[torch.Tensor], backend: str | None = None) -> torch.Tensor:
        y = right(call, tensors, backend)
        return change(y) if call.input[1:] == (6, 28, 28) and backend != "reference" else y

    monkeypatch.setattr(Call, "ours", ours)


def test_a_wrong_case_is_not_timed_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spoil(monkeypatch, lambda y: y * 1.0001)
    status, rows = benchmark(
        tmp_path, "--cases", "lenet5.pool?", "--batch", "1", "--passes", "forward"
    )
    assert status == 1
    assert [row["status"] for row in rows] == ["wrong", "ok"]
    assert "output off by" in rows[0]["detail"] and not rows[0]["ratio"] and rows[1]["ratio"]


def test_a_broken_case_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(y: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the launch failed")

    spoil(monkeypatch, broken)
    status, rows = benchmark(
        tmp_path, "--cases", "lenet5.pool?", "--batch", "1", "--passes", "forward"
    )
    assert status == 1
    assert [(row["status"], row["detail"]) for row in rows] == [
        ("broken", "RuntimeError: the launch failed"),
        ("ok", ""),
    ]
    assert "broken: RuntimeError: the launch failed" in (tmp_path / "results.md").read_text(
        encoding="utf-8"
    )


def test_the_backend_named_must_be_the_one_that_ran(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    right = Call.ours
    monkeypatch.setattr(
        Call, "ours", lambda call, tensors, backend=None: right(call, tensors, "aten")
    )
    chosen = (
        "--cases",
        "lenet5.pool1",
        "--batch",
        "1",
        "--passes",
        "forward",
        "--backend",
        "reference",
    )
    status, rows = benchmark(tmp_path, *chosen)
    assert status == 1 and "asked for reference, served by aten" in rows[0]["detail"]


def test_each_backend_is_recorded_as_the_one_that_ran(tmp_path: Path) -> None:
    chosen = (
        "--cases",
        "lenet5.pool2",
        "--batch",
        "1",
        "--passes",
        "forward",
        "--backend",
        "reference,aten",
    )
    assert [row["backend"] for row in benchmark(tmp_path, *chosen)[1]] == ["reference", "aten"]


def test_what_a_backend_does_not_serve_is_said_and_no_failure(tmp_path: Path) -> None:
    chosen = (
        "--cases",
        "lenet5.conv1,lenet5.pool2",
        "--batch",
        "1",
        "--passes",
        "forward",
        "--backend",
        "cpu",
    )
    status, rows = benchmark(tmp_path, *chosen)
    assert status == 0 and rows[0]["status"] == "not served" and "cpu" in rows[0]["detail"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cases", "vgg20*"), "no case matches 'vgg20*'"),
        (("--passes", "sideways"), "'sideways' is not one of forward"),
        (("--batch", "0"), "not a list of positive integers"),
        (("--dtype", "int8"), "'int8' is not one of float32"),
        (("--threads", "0"), "--threads must be at least 1"),
    ],
)
def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit) as exit:
        run.main(list(arguments))
    assert exit.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    "operator, arguments",
    (
        ("roi_align", {"output_size": 7, "spatial_scale": 0.25, "sampling_ratio": 2}),
        ("roi_pool", {"output_size": 4, "spatial_scale": 0.25}),  # no edge is rounded
        ("nms", {"iou_threshold": 0.4}),
    ),
)
def test_detection_is_compared_with_pytorchs_parts(operator: str, arguments: dict) -> None:
    """They compute the same, so the comparison is fair and the check means something."""
    call = Call(operator, (1, 4, 48, 64), arguments=arguments, boxes=40)
    tensors = call.random(seed=3)
    y = call.theirs(tensors)
    grad = torch.ones_like(y) if y.is_floating_point() else None
    rows = check(call, tensors, grad, backend="cpu")
    assert [row.result for row in rows] == ["output", "grad_input"][: len(rows)]
    assert all(row.passed and row.theirs < 1e-4 for row in rows)
    assert call.passes == (("forward",) if operator == "nms" else call.passes[:4])


def test_pytorch_is_held_to_avx2_by_a_process_that_begins_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, held = [], []
    monkeypatch.setattr(os, "execve", lambda *how: began.append(how))
    monkeypatch.setattr(native, "use_isa", held.append)
    monkeypatch.setattr(os, "environ", {"HOME": "/"})
    options.hold_to("avx2")
    ((program, argv, environment),) = began
    assert (program, argv) == (sys.executable, sys.orig_argv)
    assert environment["ATEN_CPU_CAPABILITY"] == "avx2" and environment["HOME"] == "/"
    monkeypatch.setattr(os, "environ", environment)
    options.hold_to("avx2")
    options.hold_to(None)
    assert len(began) == 1 and held == ["avx2"] * 2
