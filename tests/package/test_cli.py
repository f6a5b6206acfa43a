"""The command line: what it prints, what it refuses, how it exits."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import pydl
import pydl_cli as cli
from pydl import backends
from pydl.dispatch import AUTO
from pydl_cli import questions

ROOT = Path(pydl.__file__).resolve().parents[1]
COMMANDS = ("info", "explain", "summary", "demo", "run", "train")


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


@pytest.mark.parametrize(
    ("version", "said"),
    ((None, "this PyTorch has no CUDA"), ("13.0", "this PyTorch is built for CUDA 13.0")),
)
def test_info_says_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, version, said) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    assert f"none in sight; {said}" in run("info").output


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


def test_run_without_a_name_lists_the_recipes() -> None:
    output = run("run").output
    assert "digits" in output and "LeNet-5 reads" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("summary", "lenet6"),
            "no model is called 'lenet6'; there are lenet5, lenet5-1998, alexnet",
        ),
        (("summary", "lenet5", "--input", "big"), "--input must be channels x height x width"),
        (("summary", "lenet5", "--input", "1x8x8"), "RuntimeError"),
        (
            ("summary", "c3d", "--input", "3x112x112"),
            "--input must be channels x frames or slices x height x width, such as 3x16x112x112",
        ),
        (("train", "c3d", "--data", "digits"), "c3d is for clips, not for classification: C3D"),
        (("summary", "lenet5", "--input", "3x32x32"), "lenet5 takes 1 channels, got --input 3x32"),
        (("summary", "lenet5", "--batch", "0"), "Invalid value for '--batch'"),
        (("demo", "--backend", "gpu"), "backend must be one of auto"),
        (("demo", "--output", __file__), "FileExistsError"),
        (("demo", "--seed", "-1"), "Invalid value for '--seed'"),
        (("run", "cats"), "no recipe is called 'cats'; there are digits"),
        (("run", "digits", "--backend", "gpu"), "backend must be one of auto"),
        (("train", "char-lm", "--backend", "gpu"), "backend must be one of auto"),
        (("train", "char-lm", "--reset-before"), "only a GRU"),
        (("train", "word-lm", "--data", "digits"), "no model is called 'word-lm'"),
    ],
)
def test_mistakes_end_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    assert said in refused(monkeypatch, capsys, *arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    "arguments",
    (
        ("explain", "lrn", "--shape", "1x3x8x8", "--device", "cuda"),
        ("demo", "--backend", "cuda"),
        ("train", "char-lm", "--backend", "cuda"),
        ("bench", "--device", "cuda"),
    ),
    ids=lambda arguments: arguments[0],
)
def test_without_a_gpu_each_command_says_so(arguments) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pydl_cli", *arguments],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search("CUDA|GPU", done.stderr)


def test_an_unknown_backend_in_the_environment_is_a_mistake_too() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pydl_cli", "info"],
        env={**os.environ, "PYDL_BACKEND": "gpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "backend must be one of auto" in done.stderr


def test_help_names_the_commands() -> None:
    output = run("--help").output
    assert all(command in output for command in ("info", "summary", "demo", "bench"))


@pytest.mark.parametrize(
    "arguments", (("--help",), ("--version",), *((command, "--help") for command in COMMANDS))
)
def test_help_and_version_do_without_pytorch(arguments) -> None:
    """Importing it takes two seconds."""
    code = (
        "import sys, pydl_cli\n"
        "sys.argv = ['pydl', *sys.argv[1:]]\n"
        "try: pydl_cli.main()\n"
        "except SystemExit as exit: assert not exit.code\n"
        "loaded = {'torch', 'numpy', 'pydl'} & sys.modules.keys()\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=True)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton")
def test_a_command_with_triton_ends_without_a_word() -> None:
    """Commands that train load it, by way of PyTorch's optimizers."""
    code = "import sys, torch._dynamo, pydl_cli\nsys.argv = ['pydl', 'info']\npydl_cli.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_version() -> None:
    result = run("--version")
    assert result.exit_code == 0 and result.output.startswith(f"pydl {pydl.__version__}")


def test_the_package_shows_what_is_public_and_loads_the_models_when_asked() -> None:
    assert set(dir(pydl)) == set(pydl.__all__)
    code = (
        "import sys, pydl\n"
        "assert not {'torch', 'numpy', 'pydl.models'} & sys.modules.keys()\n"
        "from pydl.explanation import explain\n"
        "assert pydl.explain is explain and callable(pydl.accelerate) and not pydl.benchmark\n"
        "assert pydl.models.lenet5 and pydl.models is sys.modules['pydl.models']\n"
        "assert all(getattr(pydl, name) is not None for name in pydl.__all__)\n"
        "try: pydl.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "module 'pydl' has no attribute 'nothing'", done.stderr


def test_beside_pytorch_the_operators_are_there_for_exported_graphs() -> None:
    for first in ("torch, pydl", "pydl.nn, torch"):
        code = f"import {first}; print(torch.ops.pydl.lrn_forward, pydl.accelerate.__name__)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.strip() == "pydl.lrn_forward accelerate", done.stderr


def test_the_demo_says_which_extras_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name)
    )
    said = refused(monkeypatch, capsys, "demo")
    assert "scikit-learn missing" in said and "pip install 'pydl-kernels[data,plots]'" in said


def test_bench_hands_its_arguments_on() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pydl_cli", "bench", "--list", "--cases", "lenet5.*"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        f"lenet5.{layer}" for layer in ("conv1", "pool1", "conv2", "pool2")
    ]


def test_roofline_outside_a_checkout_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(cli.roofline, "SCRIPT", tmp_path / "tests" / "machine_code.py")
    said = refused(monkeypatch, capsys, "roofline")
    assert "in a checkout of the repository, run `python tests/machine_code.py`" in said


def test_explain_names_the_measurement_and_the_refusals() -> None:
    result = run("explain", "lrn", "--shape", "16x96x55x55")
    said = " ".join(result.output.split())
    assert result.exit_code == 0 and "cpu serves lrn of 16x96x55x55, float32" in said
    assert "Measured: bench/results/some/lrn.csv: won" in said
    result = run("explain", "pool", "--shape", "1,6,28,28", "--channels-last")
    assert "aten serves pool" in result.output and "No measured row" in result.output


def test_explain_of_a_model_is_a_table_of_its_layers() -> None:
    lenet = "pydl.models.lenet5:lenet5"
    said = run("explain", lenet, "--shape", "32x1x32x32").output.splitlines()
    assert said[0].split()[-3:] == ["ratio", "share", "why"]
    (pool,) = (line for line in said if line.startswith("pool1 "))
    assert " cpu " in pool and pool.endswith("bench/results/some/pool.csv: won")
    assert said[-1].startswith("The model takes ")
    fused = run("explain", lenet, "--shape", "2x1x32x32", "--fuse").output
    assert "conv1 " in fused and "pool1 + relu" in fused


# Family, shape, what else, then who serves which kind, as the operators themselves ask.
EXPLAINED = [
    ("conv", "2x3x8x8", "", "aten serves conv"),
    ("depthwise", "32x96x56x56", "", "cpu serves depthwise of"),
    ("depthwise", "32x96x56x56", "--channels-last --stride 2", "aten serves depthwise of"),
    (
        "depthwise",
        "32x96x56x56",
        "--channels-last",
        "cpu serves depthwise (conv_forward, conv_grad_input) of",
    ),
    (
        "depthwise",
        "32x96x56x56",
        "--channels-last",
        "aten serves depthwise (conv_grad_weight) of",
    ),
    ("depthwise", "2x1x8x8", "", "aten serves conv of"),  # of one channel, it is not
    ("batch_norm", "8x3", "", "aten serves batch_norm of"),
    ("batch_norm", "8x16x64x64", "", "cpu serves batch_norm of"),
    ("batch_norm_inference", "8x16x64x64", "", "aten serves batch_norm_inference of"),
    ("pool", "16x96x55x55", "", "cpu serves pool of"),
    ("pool", "2x64x16x32x32", "--channels-last", "aten serves pool3d (max_pool_forward) of"),
    ("pool", "2x64x16x32x32", "--channels-last", "cpu serves pool3d (avg_pool_forward) of"),
    ("softmax", "32x21x300x300", "--dim 1", "cpu serves softmax_columns of"),
    ("softmax", "32000x10", "", "cpu serves softmax_short_rows of"),
    ("softmax", "32x1000", "", "aten serves softmax of"),
    ("rnn", "20x32x128", "", "aten serves rnn_lstm of"),
    ("rnn", "20x32x128", "--dtype float64", "cpu serves rnn_lstm of"),
    ("rnn", "20x32x128", "--cell gru", "cpu serves rnn of"),
    ("rnn", "4x32x128", "--cell gru", "aten serves rnn_short of"),
    ("rnn", "4x32x128", "--cell gru_reset_before", "cpu serves rnn_own of"),
    ("rnn_cell", "32x128", "--cell gru", "aten serves rnn_cell of"),
    ("roi", "1x3x8x8", "", "cpu serves roi of"),
]


@pytest.mark.parametrize(("family", "shape", "options", "said"), EXPLAINED)
def test_explain_asks_what_the_call_asks(family, shape, options, said) -> None:
    result = run("explain", family, "--shape", shape, *options.split())
    assert result.exit_code == 0 and said in " ".join(result.output.split())


def test_explain_reaches_every_kind_of_the_dispatch_table() -> None:
    asked = set()
    for family, row in questions.FAMILIES.items():
        for axes in row.axes:
            options = {
                "dim": ({"dim": -1}, {"dim": 0}),
                "cell": ({"cell": "lstm"}, {"cell": "gru"}),
            }
            for how in options.get("".join(row.options), ({},)):
                rows = 9_000 if family == "softmax" else 9  # of few nothing more is asked
                x = torch.empty([rows, 4, 5, 6, 7, 2, 2, 2][:axes])
                asked |= {question.kind for question in questions.asked(family, x, **how)}
    assert asked >= {family for _, family in AUTO}
    assert asked | {"bias_act", "rnn_short", "softmax"} == set(
        backends.BACKENDS["reference"].families
    )


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
        (("lrn", "--shape", "1x-2x3"), "--shape must be such as 16x96x55x55"),
        (("lrn", "--shape", f"1x{2**63}x3"), "--shape must be such as 16x96x55x55"),
        (("lrn", "--shape", "1x2"), "must be images x channels x one to three axes, got '1x2'"),
        (("lrn", "--shape", "1x2x3", "--device", "gpu"), "--device must be cpu or cuda"),
        (("lrn", "--shape", "1x2x3", "--stride", "2"), "--stride is for depthwise, not for lrn"),
        (("lrn", "--shape", "9999999x9999999x9"), "can't allocate memory"),
        (("softmax", "--shape", "1x2", "--dim", "2"), "Dimension out of range"),
        (("lrn", "--shape", "1x2", "--dtype", "int8"), "--dtype must be one of float32,"),
        (("lrn", "--shape", "1x2", "--channels-last"), "needs a shape of 4 or 5 axes"),
        (("math:pi", "--shape", "1x2"), "'float' object is not callable"),
        (("math:tau2", "--shape", "1x2"), "the model: module 'math' has no 'tau2'"),
        (("math:", "--shape", "1x2"), "the model must be module:factory, got 'math:'"),
        (("rnn", "--shape", "1x2"), "must be steps x sequences x hidden units"),
        (("rnn", "--shape", "1x2x3", "--cell", "elman"), "--cell must be one of rnn_tanh,"),
    ],
)
def test_explain_refuses_what_it_cannot_make_sense_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments, said
) -> None:
    assert said in refused(monkeypatch, capsys, "explain", *arguments)
