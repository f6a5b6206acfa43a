"""Several processes train as one does, and go on after one of them died."""

from pathlib import Path

import pytest
import torch
from models import trained
from torch.utils.data import BatchSampler

from pydl.train.distributed import Shard


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the weights of the runs lie."""
    folder = tmp_path_factory.mktemp("shared")
    trained.run("shared", folder)
    return folder


@pytest.mark.parametrize("name", ["two", "two accumulating"])
def test_two_processes_are_one_with_batches_twice_as_large(ended: Path, name: str) -> None:
    weights, figures = torch.load(ended / "one-0.pt")
    for rank in (0, 1):
        ours, of_two = torch.load(ended / f"{name}-{rank}.pt")
        torch.testing.assert_close(ours, weights)
        assert of_two == pytest.approx(figures)


def test_after_a_death_torchrun_goes_on_from_the_checkpoint(ended: Path) -> None:
    assert (ended / "whole.lives").read_text() == "0"
    assert (ended / "reborn.lives").read_text() == "1"
    whole, reborn = torch.load(ended / "whole.pt"), torch.load(ended / "reborn.pt")
    for ours, theirs in zip(reborn[:2], whole[:2], strict=True):
        for key, value in theirs.items():
            assert torch.equal(ours[key], value), key
    assert reborn[2] == whole[2]


@pytest.mark.parametrize(("count", "processes"), [(12, 3), (10, 4), (2, 3), (1, 4)])
def test_shards(count: int, processes: int) -> None:
    even = [list(Shard(range(count), which, processes, even=True)) for which in range(processes)]
    assert {len(shard) for shard in even} == {-(-count // processes)}
    assert {i for shard in even for i in shard} == set(range(count))
    uneven = [Shard(range(count), which, processes, even=False) for which in range(processes)]
    assert sorted(i for shard in uneven for i in shard) == list(range(count))
    assert [len(shard) for shard in uneven] == [len(list(shard)) for shard in uneven]
    batches = Shard(BatchSampler(range(count), 2, drop_last=False), 0, processes, even=True)
    assert next(iter(batches)) == list(range(min(count, 2)))
