"""What tests of the package's commands share."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def unpinned() -> Iterator[None]:
    """A benchmark pins its process to a core: the next test has those that the suite began with."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if cores is not None:
        os.sched_setaffinity(0, cores)
