"""The command line: what it prints, what it refuses, how it exits."""

import functools
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import pydl
from pydl import backends, cli, digits


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    """What ``pydl`` says on standard error when it exits with status 2."""
    monkeypatch.setattr(sys, "argv", ["pydl", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert exit.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_info_lists_every_backend_and_what_is_at_work() -> None:
    result = run("info")
    assert result.exit_code == 0
    for name in backends.BACKENDS:
        assert re.search(rf"\b{name}\b", result.output)
    assert torch.__version__ in result.output


def test_info_says_why_a_backend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "report", lambda: [("cuda", False, "no compiler was found")])
    assert "no compiler was found" in run("info").output


def test_summary_prints_layers_and_totals() -> None:
    result = run("summary", "lenet5")
    assert result.exit_code == 0
    for figure in ("6x28x28", "16x5x5", "2,416", "48,120", "61,470", "61,706", "416,520"):
        assert figure in result.output


def test_summary_takes_another_input_and_a_batch() -> None:
    assert "64x63x63" in run("summary", "alexnet-torchvision", "--input", "3x256x256").output
    assert f"{4 * 416_520:,}" in run("summary", "lenet5", "--batch", "4").output


def test_summary_without_a_name_lists_the_models() -> None:
    output = run("summary").output
    assert "lenet5" in output and "alexnet-torchvision" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("summary", "lenet6"),
            "no model is called 'lenet6'; there are lenet5, lenet5-1998, alexnet",
        ),
        (("summary", "lenet5", "--input", "big"), "--input must be channels x height x width"),
        (("summary", "lenet5", "--input", "1x8x8"), "RuntimeError"),
        (("demo", "--backend", "gpu"), "backend must be one of auto"),
    ],
)
def test_mistakes_end_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert said in refused(monkeypatch, capsys, *arguments)


def test_help_names_the_commands() -> None:
    output = run("--help").output
    assert all(command in output for command in ("info", "summary", "demo", "bench"))


def test_the_demo_says_which_extras_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    said = refused(monkeypatch, capsys, "demo")
    assert "scikit-learn missing" in said and "pip install 'pydl-kernels[data,plots]'" in said


def test_the_demo_writes_its_page_and_fails_below_the_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    from pydl.digits import operators

    monkeypatch.setattr(operators, "examine", functools.partial(operators.examine, seconds=0.01))
    threads = torch.get_num_threads()
    try:
        result = run("demo", "--epochs", "1", "--output", str(tmp_path / "demo"))
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 1 and "the target is 97 %" in result.output
    pictures = {path.stem: path.read_bytes() for path in (tmp_path / "demo").glob("*.png")}
    expected = {"learning_curve", "confusion_matrix", "filters", "activations", "misread", "speed"}
    assert set(pictures) == expected
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    page = (tmp_path / "demo" / "index.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 * len(expected)  # light and dark
    assert "http" not in page and 'src="data:' in page  # nothing is fetched


def test_requiring_extras_passes_where_they_are() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    digits.require_extras()


def test_bench_hands_its_arguments_on() -> None:
    root = Path(pydl.__file__).resolve().parents[1]
    if not (root / "bench" / "run.py").is_file():
        pytest.skip("not a checkout: the benchmark is not part of the package")
    done = subprocess.run(
        [sys.executable, "-m", "pydl.cli", "bench", "--list", "--cases", "lenet5.*"],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        f"lenet5.{layer}" for layer in ("conv1", "pool1", "conv2", "pool2")
    ]


def test_bench_outside_a_checkout_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(pydl, "__file__", str(tmp_path / "pydl" / "__init__.py"))
    assert "run it from a checkout" in refused(monkeypatch, capsys, "bench", "--list")


def test_explain_names_the_measurement_and_the_refusals() -> None:
    result = run("explain", "lrn", "--shape", "16x96x55x55")
    said = " ".join(result.output.split())
    assert result.exit_code == 0 and "cpu serves lrn of 16x96x55x55, float32" in said
    assert "bench/results/cpu/results.csv" in said
    result = run("explain", "pool", "--shape", "1,6,28,28", "--channels-last")
    assert "aten serves pool" in result.output and "No measured row" in result.output


def test_explain_says_how_the_cuda_kernels_go_through_a_sequence() -> None:
    if backends.refusal("cuda", "rnn", torch.empty(1, 1, 1)) is not None:
        said = run("explain", "rnn", "--shape", "64x32x64", "--device", "cuda").output
    else:  # emulated
        said = run("explain", "rnn", "--shape", "64x32x64", "--cell", "gru").output
    assert "CUDA, forward: persistent," in said and "CUDA, backward: persistent," in said


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("lrnn", "--shape", "1x2x3x3"), "no family is called 'lrnn'; there are conv,"),
        (("lrn", "--shape", "large"), "--shape must be such as 16x96x55x55"),
        (("lrn", "--shape", "1x2", "--dtype", "int8"), "--dtype must be one of float32,"),
        (("lrn", "--shape", "1x2", "--channels-last"), "needs a shape of 4 or 5 axes"),
        (("rnn", "--shape", "1x2"), "must be steps x sequences x hidden units"),
        (("rnn", "--shape", "1x2x3", "--cell", "elman"), "--cell must be one of rnn_tanh,"),
    ],
)
def test_explain_refuses_what_it_cannot_make_sense_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments, said
) -> None:
    assert said in refused(monkeypatch, capsys, "explain", *arguments)
