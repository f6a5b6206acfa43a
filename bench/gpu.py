"""``make gpu``: everything that wants a GPU, with the machine's own Python and nothing fetched.

    python bench/gpu.py [build] [test] [sanitize] [bench]      all four, in this order, where none
    is named

Nine minutes in all. Each step runs whatever became of those before it and is stopped at its limit;
what it does first is what matters most, and what it had found by then stands: the log has each test
and each measurement as it came. What the steps print goes to bench/results/<gpu>/log.txt, a line
for each step to parts.md beside it, where the benchmark leaves its tables too.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from folders import RESULTS  # noqa: E402

from pydl import measure  # noqa: E402
from pydl.bench.results import folder  # noqa: E402

GRACE = 8  # seconds from the request to end, which pytest answers with its summary, to the end
STOPPED, NOT_HERE = 124, 127
# What the benchmark measures in its minute: the calls that decide about a family.
FIRST = (
    "vgg16.conv3_2",
    "resnet50.layer1.0.bn1+relu",
    "alexnet.pool1",
    "mobilenetv2.depthwise-144-56",
    "alexnet.lrn1",
    "resnet50.layer1.0.conv1",
    "resnet50.layer1.0.conv2+relu",
    "alexnet.conv1",
    "voc.softmax",
    "voc.loss",
    "classifier.relu-4096",
    "classifier.dropout-4096",
    "googlenet.avgpool",
    "segnet.unpool1",
    "deepface.l4",
    "maskrcnn.roi_align",
)


@dataclass(frozen=True)
class Step:
    """A command, and the seconds that it may take."""

    part: str
    title: str
    command: list[str]
    limit: int


def results() -> Path:
    """The folder for this GPU's results, made where it is missing."""
    import torch

    gpu = torch.cuda.is_available()
    out = RESULTS / folder(measure.device_name("cuda") if gpu else "no-gpu")
    out.mkdir(parents=True, exist_ok=True)
    return out


def architecture() -> str:
    """This GPU's, as nvcc calls it; Hopper's with the instructions that no later one has."""
    import torch

    if not torch.cuda.is_available():
        return "90a"
    capability = "".join(map(str, torch.cuda.get_device_capability()))
    return "90a" if capability == "90" else capability


def steps(out: Path) -> Iterator[Step]:
    """All of them, in order. The tests' selection is that of tests/gpu_selection.py."""
    python = [sys.executable]
    yield Step("build", "build in place", ["sh", "-exc", build()], 110)
    workers = min(12, os.cpu_count() or 1)
    tests = "-m pytest -v --tb=short -p no:cacheprovider tests/grid"
    suite = f"{tests} --gpu 8 -n {workers} --dist load --maxschedchunk 2"
    yield Step("test", "the suite, natively", python + shlex.split(suite), 175)
    # It slows kernels down a hundredfold: a row of each table, of the kernels in CUDA C++.
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    which = "(cuda-cuda and float32) or (test_conv_cuda and not float32) or test_rnn_cuda"
    few = [*python, *f"{tests} --gpu 1 -k".split(), which]
    for tool in ("memcheck", "racecheck"):
        how = f"--tool {tool} --error-exitcode 9 --target-processes all"
        yield Step("sanitize", f"compute-sanitizer {tool}", [sanitizer, *how.split(), *few], 55)
    layers = "bench/run.py --device cuda --backend cuda,triton --seconds 0.1"
    for layout, dtype in (("channels_last", "bfloat16"), ("nchw", "float32")):
        how = f"{layers} --layout {layout} --dtype {dtype} --name {layout}-{dtype}"
        command = [*python, *how.split(), "--cases", ",".join(FIRST), "--out", str(out)]
        yield Step("bench", f"benchmark, {layout}, {dtype}", command, 40)
    recurrent = shlex.split("bench/rnn.py --device cuda --seconds 0.1 --out")
    command = [*python, *recurrent, str(out / "rnn.csv")]
    yield Step("bench", "benchmark, recurrent layers", command, 35)


def build() -> str:
    """By CMake alone, so that it matters to no version of setuptools, nor to what is installed: for
    this GPU, and CPU kernels for this processor."""
    options = f"-DPYDL_CUDA=ON -DPYDL_CUDA_ARCHITECTURES={architecture()}"
    return f"""
        cmake -S . -B build/gpu -G Ninja -DPython_EXECUTABLE={shlex.quote(sys.executable)} {options}
        cmake --build build/gpu
        cmake --install build/gpu --prefix pydl
        ln -sfn ../kernels pydl/kernels
    """


def run(step: Step, log: Path) -> int:
    """Runs a step, its output into the log; at its limit it and all that it started are ended."""
    with log.open("a") as stream:
        stream.write(f"\n==== {' '.join(step.command)}\n")
        stream.flush()
        try:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:  # the tool is not on this machine
            stream.write(f"{error}\n")
            return NOT_HERE
        ends = ((signal.SIGINT, max(step.limit - GRACE, 1)), (signal.SIGKILL, GRACE))
        try:
            for end, seconds in ends:
                try:
                    code = process.wait(timeout=seconds)
                    return code if end == signal.SIGINT else STOPPED
                except subprocess.TimeoutExpired:
                    _signal(process, end)
            return STOPPED
        finally:
            _signal(process, signal.SIGKILL)  # what outlived it
            process.wait()


def _signal(process: subprocess.Popen, which: signal.Signals) -> None:
    """To a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, which)


def said(code: int, limit: int) -> str:
    """An exit status, in words."""
    known = {0: "passed", STOPPED: f"stopped after {limit} s", NOT_HERE: "not on this machine"}
    return known.get(code, f"failed ({code})")


def main(named: list[str]) -> int:
    out = results()
    every = list(steps(out))
    parts = list(dict.fromkeys(step.part for step in every))
    unknown = [name for name in named if name not in parts]
    if unknown:
        sys.exit(f"no part {', '.join(unknown)}; the parts are {', '.join(parts)}")
    log, table = out / "log.txt", out / "parts.md"
    log.write_text("")
    rows, failed = ["| part | result | seconds |", "|---|---|---|"], False
    for step in every:
        if step.part not in (named or parts):
            continue
        start = time.monotonic()
        code = run(step, log)
        took = time.monotonic() - start
        rows.append(f"| {step.title} | {said(code, step.limit)} | {took:.0f} |")
        print(rows[-1], flush=True)
        table.write_text("\n".join(rows) + "\n")
        failed |= code != 0
    print("\n".join(log.read_text().splitlines()[-40:]))
    print("\n".join(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
