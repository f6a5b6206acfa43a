"""What tests of the package's commands share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import pydl
from pydl.tuning import file


@pytest.fixture
def unpinned() -> Iterator[None]:
    """A benchmark pins its process to a core: the next test has those that the suite began with."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if cores is not None:
        os.sched_setaffinity(0, cores)


@pytest.fixture
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No call is known, and files go to a folder of the test's own."""
    monkeypatch.setattr(file, "folder", lambda: tmp_path / "tuned")
    yield
    pydl.benchmark = False
