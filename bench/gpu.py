"""``make gpu``: everything that wants a GPU, with the machine's own Python and nothing fetched.

    python bench/gpu.py [build] [test] [sanitize] [bench]      all four, in this order, where none
    is named

Each part runs whatever became of the others, within its share of the nine minutes. What they print
goes to bench/results/<gpu>/log.txt, a line a part to bench/results/<gpu>/parts.md; the benchmark
leaves its tables beside them.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CUDA_TESTS = [
    f"tests/test_{family}.py"
    for family in (
        *("rnn", "rnn_cuda", "conv", "conv_cuda", "depthwise", "bias_act", "local", "pool"),
        *("pool_lp", "pool_adaptive", "unpool", "roi", "nms", "lrn", "spatial_norm", "batch_norm"),
    )
]


def results() -> Path:
    """bench/results/<gpu>, from the GPU's name: "NVIDIA H200" is h200."""
    import torch

    name = (
        torch.cuda.get_device_name().lower().removeprefix("nvidia ")
        if torch.cuda.is_available()
        else "no-gpu"
    )
    folder = ROOT / "bench" / "results" / re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sanitizer(tool: str) -> list[str]:
    """The CUDA tests under compute-sanitizer; a few of each family, since it slows a kernel a
    hundredfold."""
    command = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    select = "cuda-cuda and float32 and (test_against_reference or test_contract)"
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        select,
        *CUDA_TESTS,
    ]
    return [command, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *pytest]


def parts(out: Path) -> dict[str, list[tuple[str, list[str], int]]]:
    """For each part: (what it is called, command, seconds it may take)."""
    python = sys.executable
    return {
        "build": [
            (
                "build in place",
                [
                    python,
                    "-m",
                    "pip",
                    "install",
                    "--no-index",
                    "--no-deps",
                    "--no-build-isolation",
                    "-e",
                    ".",
                ],
                150,
            )
        ],
        "test": [
            (
                "the suite, natively",
                [python, "-m", "pytest", "-q", "-n", "6", "-m", "not slow"],
                140,
            )
        ],
        "sanitize": [
            (f"compute-sanitizer {tool}", sanitizer(tool), 50) for tool in ("memcheck", "racecheck")
        ],
        "bench": [
            (
                "benchmark",
                [
                    python,
                    "bench/run.py",
                    "--device",
                    "cuda",
                    "--backend",
                    "triton,cuda",
                    "--seconds",
                    "0.3",
                    "--out",
                    str(out),
                ],
                90,
            ),
            (
                "benchmark of recurrent layers",
                [
                    python,
                    "bench/rnn.py",
                    "--device",
                    "cuda",
                    "--seconds",
                    "0.1",
                    "--out",
                    str(out / "rnn.csv"),
                ],
                60,
            ),
        ],
    }


def run(command: list[str], limit: int, log: Path) -> int:
    """Runs a command into the log, and ends it with everything it started when its time is over."""
    with log.open("a") as stream:
        stream.write(f"\n==== {' '.join(command)}\n")
        stream.flush()
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            stream.write(f"\n==== ended after {limit} s\n")
            return 124


def main(named: list[str]) -> int:
    out = results()
    table = parts(out)
    unknown = [name for name in named if name not in table]
    if unknown:
        sys.exit(f"no part {', '.join(unknown)}; the parts are {', '.join(table)}")
    log = out / "log.txt"
    log.write_text("")
    rows, failed = ["| part | result | seconds |", "|---|---|---|"], 0
    for name in named or table:
        for title, command, limit in table[name]:
            start = time.monotonic()
            try:
                code = run(command, limit, log)
            except OSError as error:  # the tool is not on this machine
                log.open("a").write(f"{error}\n")
                code = 127
            took = time.monotonic() - start
            said = {0: "passed", 124: f"ended after {limit} s", 127: "not on this machine"}.get(
                code, f"failed ({code})"
            )
            rows.append(f"| {title} | {said} | {took:.0f} |")
            print(rows[-1], flush=True)
            failed |= code != 0
    (out / "parts.md").write_text("\n".join(rows) + "\n")
    print("\n".join(log.read_text().splitlines()[-40:]))
    print("\n".join(rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
