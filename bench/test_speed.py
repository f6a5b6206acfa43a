"""The same cases through pytest-benchmark: ``pytest bench/``, ``pytest bench/ -k lrn
--benchmark-compare``.

Each group is one case and pass, with this package's time beside PyTorch's; the published figures
are those of ``bench/run.py``.
"""

import pytest
import torch
from cases import CASES, Case

from pydl.models.calls import check

pytest.importorskip("pytest_benchmark")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("who", ["pydl", "pytorch"])
@pytest.mark.parametrize("kind", ["forward", "both"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_speed(benchmark, case: Case, kind: str, who: str) -> None:
    call = case.call()
    tensors = call.random()
    grad = torch.empty_like(call.theirs(tensors)).normal_()
    if who == "pydl":
        assert all(row.passed for row in check(call, tensors, grad))
    benchmark.group = f"{case.name}, {kind}"
    benchmark(call.runner(kind, call.ours if who == "pydl" else call.theirs, tensors, grad))
