"""`make gpu`, as far as it goes without a GPU: its limits, and that each step stands by itself."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import gpu  # noqa: E402

from pydl import backends  # noqa: E402
from pydl.bench import cases  # noqa: E402
from pydl.models.calls import precision  # noqa: E402


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_all_steps_together_take_nine_minutes_at_most(tmp_path: Path) -> None:
    steps = list(gpu.steps(tmp_path))
    limits = dict.fromkeys(("build", "test", "sanitize", "bench"), 0)
    for step in steps:
        assert step.limit > gpu.GRACE
        limits[step.part] += step.limit
    # And half a minute for the processes that are started and ended.
    assert sum(limits.values()) <= 510 and max(limits.values()) <= 180
    assert all(limits[part] <= 120 for part in ("build", "sanitize", "bench"))


def test_the_benchmark_measures_the_cases_of_its_table_first() -> None:
    assert set(gpu.FIRST) <= {case.name for case in cases.CASES}


def test_a_step_that_fails_or_is_not_there_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        gpu.Step("build", "one that fails", python("raise SystemExit(3)"), 60),
        gpu.Step("test", "one that is not there", ["/nowhere/compute-sanitizer"], 60),
        gpu.Step("bench", "one that passes", python("print('measured')"), 60),
    ]
    monkeypatch.setattr(gpu, "steps", lambda out: steps)
    monkeypatch.setattr(gpu, "results", lambda: tmp_path)
    assert gpu.main([]) == 1
    table = (tmp_path / "parts.md").read_text()
    results = re.findall(r"\| (one that .*?) \| (.*?) \|", table)
    assert [said for _, said in results] == ["failed (3)", "not on this machine", "passed"]
    assert "measured" in (tmp_path / "log.txt").read_text()
    assert gpu.main(["bench"]) == 0


def test_a_step_is_stopped_at_its_limit_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had written stands, it may say a last word, and one that does not listen is ended."""
    monkeypatch.setattr(gpu, "GRACE", 2)
    sleeps = "import time; time.sleep(99)"
    sleeper = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeps!r}])"
    listening = f"""
import sys
print("before", flush=True)
try:
    {sleeper}
except KeyboardInterrupt:
    print("summary", flush=True)
"""
    deaf = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {sleeper}"
    log = tmp_path / "log.txt"
    for code in (listening, deaf):
        start = time.monotonic()
        assert gpu.run(gpu.Step("test", "endless", python(code), 4), log) == gpu.STOPPED
        assert time.monotonic() - start < 10
    said = log.read_text()
    assert "before" in said and "summary" in said
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert sleeps not in running


def test_the_selection_has_every_family_by_both_backends() -> None:
    """Of a table of rows and dtypes: as many rows as asked for, first rows first."""
    command = [sys.executable, "-m", "pytest", "tests/grid/test_lrn.py", "tests/grid/test_pool.py"]
    options = ["--gpu", "2", "--collect-only", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run(
        [*command, *options], cwd=BENCH.parent, check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"test_(\w+)\.py::.*?\[(triton|cuda)-.*-torch\.(\w+)\]", listed)
    assert len(found) == 16 and len(set(found)) == 8
    assert {family for family, _, _ in found[:8]} == {"lrn", "pool"}
    assert {dtype for _, _, dtype in found} == {"float32", "bfloat16"}


def test_every_family_with_a_kernel_has_marked_tests() -> None:
    marked = {
        path.stem.removeprefix("test_")
        for path in (BENCH.parent / "tests/grid").glob("*.py")
        if "@pytest.mark.gpu" in path.read_text(encoding="utf-8")
    }
    on_gpu = {family for name in ("cuda", "triton") for family in backends.BACKENDS[name].families}
    families = on_gpu & set(backends.FAMILIES)
    assert families <= marked, families - marked


@pytest.mark.parametrize(
    ("driver", "compiled", "said"),
    (
        (12080, "13.0", "compiled by CUDA 13.0, and this machine's driver serves CUDA up to 12.8"),
        (13000, "13.2", None),
        (13010, "12.9", None),
        (0, "13.0", None),  # no driver, no GPU
    ),
)
def test_a_driver_that_is_too_old_is_named_once_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, driver, compiled, said
) -> None:
    monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: driver, raising=False)
    found = backends._old_driver(compiled)
    assert found is None if said is None else said in found


def test_tf32_is_allowed_its_rounding_where_it_is_switched_on() -> None:
    with torch.backends.cudnn.flags(allow_tf32=True):
        assert precision("conv2d_bias_act", torch.float32, "cuda") == 2**-10
        exact = torch.finfo(torch.float32).eps
        assert precision("max_pool2d", torch.float32, "cuda") == exact
        assert precision("conv2d", torch.float32, "cpu") == exact
        assert precision("conv2d", torch.bfloat16, "cuda") == torch.finfo(torch.bfloat16).eps
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert precision("conv2d", torch.float32, "cuda") == exact


def test_the_package_can_be_imported_with_nothing_but_pytorch() -> None:
    """As on a machine whose image has a PyTorch, and no network."""
    absent = "platformdirs", "filelock", "rich", "typer", "safetensors", "sklearn", "PIL"
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in {absent!r} else find_spec(name)
import torch
from pydl import functional
print(functional.max_pool2d(torch.ones(1, 1, 4, 4), 2).shape)
"""
    done = subprocess.run(python(code), cwd=BENCH.parent, capture_output=True, text=True)
    assert done.returncode == 0 and "[1, 1, 2, 2]" in done.stdout, done.stderr


def test_what_make_gpu_runs_needs_nothing_but_pytorch_and_numpy() -> None:
    lacking = ("rich", "typer", "platformdirs", "filelock", "safetensors", "matplotlib")
    code = (
        f"import sys; sys.modules |= dict.fromkeys({lacking})\n"
        f"sys.path.insert(0, {str(BENCH)!r})\n"
        "import gpu, rnn, run"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
