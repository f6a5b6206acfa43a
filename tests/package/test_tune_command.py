"""``pydl tune``."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import pydl_cli
from pydl import tuning
from pydl.tuning import file, misses
from pydl_cli import tune

pytestmark = pytest.mark.usefixtures("nothing_known")


def run(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(pydl_cli.app, ["tune", *arguments])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        return 2, f"{type(ran.exception).__name__}: {ran.exception}"
    return ran.exit_code, " ".join(ran.output.split())


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, in the folder that the command is run in."""
    (tmp_path / "of_a_user.py").write_text(
        "import torch\n"
        "def net():\n"
        "    nn = torch.nn\n"
        "    return nn.Sequential(nn.BatchNorm2d(4), nn.MaxPool2d(3, 2), nn.LocalResponseNorm(3))\n"
        "def broken():\n"
        "    return torch.nn.Sequential(torch.nn.MaxPool2d(3, 2), torch.nn.Linear(3, 3))\n"
        "def none():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "of_a_user"


def test_the_command_tunes_a_model_once(user_module: str) -> None:
    given = "--model", f"{user_module}:net", "--input", "2x4x9x9", "--seconds", "0"
    status, said = run(*given, "--dry-run")
    assert status == 0 and "pool 2x4x9x9 float32, training" in said
    assert said.endswith("6 calls would be measured.") and not tuning.folder().exists()
    status, said = run(*given)
    assert status == 0 and "Kept in" in said and file.file().is_file()
    assert run(*given)[1].endswith("`pydl tune --clear` forgets it.")
    assert run("--clear")[1].startswith("Removed 1 files") and not file.file().exists()


def test_the_command_measures_all_families(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {2: ((8, 10),), 3: ((9, 2, 4),), 4: ((1, 2, 9, 9),), 5: ((1, 2, 4, 5, 5),)}
    monkeypatch.setattr(tune, "SHAPES", shapes)
    status, said = run("--dry-run")
    assert status == 0
    families = set(said.split())
    assert {"depthwise", "pool", "pool3d", "softmax_short_rows", "lrn", "rnn_lstm"} <= families
    # Triton's interpreter and the emulator would take minutes for all of them.
    monkeypatch.setattr(misses, "CANDIDATES", ("aten", "cpu"))
    status, said = run("--seconds", "0")
    assert status == 0 and "PyTorch's own is fastest, or as fast, at" in said
    assert "is not" not in said  # no kernel was left out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "{}"), "--model needs an --input"),
        (("--input", "1x2"), "--input a --model"),
        (("--model", "{}", "--input", "2x4x9x9"), "--model must be module:factory"),
        (("--model", "{}:absent", "--input", "2x4x9x9"), "has no 'absent'"),
        (("--model", "{}:none", "--input", "2x4x9x9"), "must return a torch.nn.Module, got int"),
        (("--model", "absent_module:net", "--input", "2x4x9x9"), "No module named"),
        (("--model", "{}:net", "--input", "2xfour"), "--input must be such as 1x3x224x224"),
        (("--model", "{}:broken", "--input", "2x4x9x9"), "mat1 and mat2 shapes"),
        (("--dtype", "float8"), "--dtype must be one of"),
        (("--device", "tpu"), "--device must be cpu or cuda"),
    ],
)
def test_mistakes_on_the_command_line_are_said(arguments, said, user_module: str) -> None:
    status, output = run(*(one.format(user_module) for one in arguments))
    assert status == 2 and said in output
