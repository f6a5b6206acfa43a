"""The benchmark's cases through pytest-benchmark: ``pytest bench/``, ``pytest bench/ -k lrn
--benchmark-compare``.

Cases, checks and what is timed are those of ``pydl bench``; pytest-benchmark brings its clock and
its comparison of runs. A group is one case and pass, this package's time beside PyTorch's.
"""

import pytest
import torch

from pydl.bench.cases import CASES, Case
from pydl.bench.harness import Setting, prepare

pytest.importorskip("pytest_benchmark")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("who", ["ours", "theirs"])
@pytest.mark.parametrize("kind", ["forward", "both"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_speed(benchmark, case: Case, kind: str, who: str) -> None:
    prepared = prepare(case, Setting())
    if kind not in prepared.call.passes:
        pytest.skip(f"{case.operator} has no gradient")
    assert not prepared.wrong
    benchmark.group = f"{case.name}, {kind}"
    benchmark(prepared.actions(kind)[who])
