"""Checkpoints: whole whatever happens, and a resumed run ends as an unbroken one."""

import zipfile
from pathlib import Path

import pytest
import torch
from models import trained
from torch.utils.data import TensorDataset

from pydl import nn
from pydl.train import CheckpointError, Settings, checkpoint, fit


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the weights of runs lie that were killed and resumed."""
    folder = tmp_path_factory.mktemp("kills")
    trained.run("kills", folder)
    return folder


@pytest.mark.parametrize("name", trained.KILLED)
def test_killed_and_resumed_it_ends_with_the_same_bits(ended: Path, name: str) -> None:
    unbroken = torch.load(ended / f"unbroken-{trained.KILLED[name][1]}.pt")
    resumed = torch.load(ended / f"{name}.pt")
    for ours, theirs in zip(resumed[:2], unbroken[:2], strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key
    assert resumed[2] == unbroken[2]


def run(path: Path, width: int = 5, epochs: int = 2, **settings) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))
    data = TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    fit(model, data, epochs=epochs, checkpoint=path, settings=Settings(batch=4, **settings))
    return model


def test_a_run_that_has_ended_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "run.pt"
    first = run(path)
    before = path.read_bytes()
    again = run(path)
    assert path.read_bytes() == before
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert [file.name for file in path.parent.iterdir()] == ["run.pt"]


def damaged(content: bytes) -> bytes:
    """One bit of a weight turned, which only the file's checksum tells."""
    where = len(content) // 2
    return content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]


SPOILT = {
    "empty": lambda content: b"",
    "text": lambda content: b"not a checkpoint\n",
    "cut off": lambda content: content[: len(content) // 2],
    "a bit turned": damaged,
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_file_is_named(tmp_path: Path, how: str) -> None:
    path = tmp_path / "run.pt"
    run(path)
    path.write_bytes(SPOILT[how](path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"run\.pt cannot be read as a checkpoint") as found:
        run(path)
    assert "\n" not in str(found.value)
    assert path.read_bytes() == before


class Foreign:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_foreign_file_is_named_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.pt"
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"run\.pt is not a checkpoint of pydl\.train"):
        run(path)
    torch.save({"kind": Foreign()}, path)
    with pytest.raises(CheckpointError, match=r"run\.pt cannot be read"):
        run(path)
    assert not (tmp_path / "executed").exists()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("page.html", "")
    with pytest.raises(CheckpointError, match=r"run\.pt cannot be read"):
        run(path)
    checkpoint.write({"format": 99}, path)
    with pytest.raises(CheckpointError, match=r"run\.pt is a checkpoint of format 99"):
        run(path)


def test_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    run(path)
    with pytest.raises(CheckpointError, match=r"run\.pt .*: epochs 2 there and 3 here"):
        run(path, epochs=3)
    with pytest.raises(CheckpointError, match=r"run\.pt .*: seed 0 there and 1 here"):
        run(path, seed=1)
    with pytest.raises(CheckpointError, match=r"only one of them averages"):
        run(path, average=0.9)
    with pytest.raises(CheckpointError, match=r"run\.pt is of another model or optimizer: .*size"):
        run(path, width=6)
