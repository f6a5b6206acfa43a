"""``make gpu``: everything that wants a GPU, with the machine's own Python and nothing fetched.

    python bench/gpu.py [build] [test] [sanitize] [bench]      all four, in this order, where none
    is named

Each part runs whatever became of the others, within its share of the nine minutes. What they print
goes to bench/results/<gpu>/log.txt, one line per part to parts.md beside it, where the benchmark
leaves its tables too.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from results import folder  # noqa: E402

from pydl import backends, measure  # noqa: E402


def cuda_tests() -> list[str]:
    """The test files of the families that have kernels in CUDA C++."""
    families = [family for family in backends.FAMILIES if "cuda" in backends.serving(family)]
    names = {f"test_{one}{end}.py" for one in (*families, "depthwise") for end in ("", "_cuda")}
    found = (ROOT / "tests").rglob("test_*.py")
    return sorted(str(path.relative_to(ROOT)) for path in found if path.name in names)


def results() -> Path:
    """The folder for this GPU's results, made where it is missing."""
    import torch

    gpu = torch.cuda.is_available()
    out = folder(measure.device_name("cuda") if gpu else "no-gpu")
    out.mkdir(parents=True, exist_ok=True)
    return out


def sanitizer(tool: str) -> list[str]:
    """The CUDA tests under compute-sanitizer: a few of each family, since it slows kernels down a
    hundredfold."""
    command = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    select = "cuda-cuda and float32 and (test_against_reference or test_contract)"
    options = shlex.split("-m pytest -q -x -p no:cacheprovider")
    pytest = [sys.executable, *options, "-k", select, *cuda_tests()]
    return [command, "--tool", tool, "--error-exitcode", "9", "--target-processes", "all", *pytest]


def parts(out: Path) -> dict[str, list[tuple[str, list[str], int]]]:
    """For each part: (what it is called, command, seconds it may take)."""
    python = [sys.executable]
    build = shlex.split("-m pip install --no-index --no-deps --no-build-isolation -e .")
    suite = shlex.split("-m pytest -q -n 6 -m 'not slow'")
    layers = shlex.split("bench/run.py --device cuda --backend triton,cuda --seconds 0.3 --out")
    recurrent = shlex.split("bench/rnn.py --device cuda --seconds 0.1 --out")
    return {
        "build": [("build in place", python + build, 150)],
        "test": [("the suite, natively", python + suite, 140)],
        "sanitize": [
            (f"compute-sanitizer {tool}", sanitizer(tool), 50) for tool in ("memcheck", "racecheck")
        ],
        "bench": [
            ("benchmark", [*python, *layers, str(out)], 90),
            ("recurrent layers", [*python, *recurrent, str(out / "rnn.csv")], 60),
        ],
    }


def run(command: list[str], limit: int, log: Path) -> int:
    """Runs a command, its output into the log, and ends it and all that it started when its time is
    over."""
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
