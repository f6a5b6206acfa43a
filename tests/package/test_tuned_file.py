"""The file that remembers what ``pydl.tune`` found."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pydl import dispatch, tuning
from pydl.tuning import file

pytestmark = pytest.mark.usefixtures("nothing_known")
X = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))


def known(x: torch.Tensor) -> dispatch.Key:
    arguments = 3, 2, 0, 1, False, False
    return dispatch.key("pool", x, "max_pool_forward", None, arguments)


def choice(size: int = 9, backend: str = "cpu") -> tuning.Choice:
    return tuning.Choice("pool", known(X[..., :size]), backend, {"aten": 2.0, backend: 1.0})


SPOILS: dict[str, Callable[[Path], object]] = {
    "a directory": lambda path: path.mkdir(parents=True),
    "half written": lambda path: path.write_text('{"format": 1, "facts": {'),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "of another device": lambda path: path.write_text(
        json.dumps({"format": file.FORMAT, "facts": {"device": "another"}, "calls": []})
    ),
    "of another form": lambda path: path.write_text("[]"),
    "with a key that is none": lambda path: path.write_text(
        json.dumps(
            {
                "format": file.FORMAT,
                "facts": file.facts(),
                "calls": [{"family": "pool", "key": [1], "backend": "cpu"}],
            }
        )
    ),
    "with a backend that is none": lambda path: (
        tuning.write([choice()]),
        path.write_text(path.read_text().replace('"backend": "cpu"', '"backend": "gpu"')),
    ),
}


@pytest.mark.parametrize("how", SPOILS)
def test_a_file_that_cannot_be_used_is_ignored_with_one_warning(how: str) -> None:
    path = file.file()
    path.parent.mkdir(parents=True)
    SPOILS[how](path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert tuning.load() == 0 and dispatch.EXACT == {}
    assert len(said) == 1 and "what pydl was tuned to is not used" in str(said[0].message)
    assert tuning.clear() == [path] and not path.exists()


def test_a_file_is_whole_or_not_there() -> None:
    path = tuning.write([choice()])
    before = path.read_text()
    tuning.write([choice(8)])
    assert len(json.loads(path.read_text())["calls"]) == 2 != before.count("family")
    assert not path.with_suffix(".new").exists()


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, torch, pathlib\n"
        "from pydl import dispatch, tuning\n"
        "from pydl.tuning import file\n"
        "file.folder = lambda: pathlib.Path(sys.argv[1])\n"
        "for i in range(10):\n"
        "    x = torch.empty(int(sys.argv[2]), 1, 9, 10 + i)\n"
        "    key = dispatch.key('pool', x, 'max_pool_forward', None, (3,))\n"
        "    tuning.write([tuning.Choice('pool', key, 'cpu', {'cpu': 1.0})])\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "tuned"), str(number)])
        for number in (1, 2)
    ]
    assert [process.wait() for process in started] == [0, 0]
    assert tuning.load() == 20


def test_a_call_that_no_file_can_hold_is_remembered_in_the_process_only() -> None:
    key = known(X)._replace(arguments=(object(),))
    path = tuning.write([tuning.Choice("pool", key, "cpu", {"cpu": 1.0}), choice()])
    assert len(json.loads(path.read_text())["calls"]) == 1


def test_what_is_kept_depends_on_device_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = file.file()
    facts = file.facts()
    assert facts["torch"] == torch.__version__ and facts["machine"] == dispatch.machine()
    monkeypatch.setattr(file, "facts", lambda device="cpu": {**facts, "torch": "0.1"})
    assert file.file() != mine
