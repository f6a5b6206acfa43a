"""How long each C++ file takes to compile: processor seconds, which a busy machine changes little.

    python cmake/compile_seconds.py LOG COMMAND...    runs a compiler and logs what it took
    python cmake/compile_seconds.py LOG               prints the table; exits with 1 if a file took
                                                      more than 60 s (`make compile-seconds`)

CMakeLists.txt puts the first form in front of every compiler. Where a compiler cache answers, its
time is what is logged.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

MOST = 60.0


def run(log: Path, command: list[str]) -> int:
    status = subprocess.run(command, check=False).returncode
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    # build/CMakeFiles/cpu_avx2.dir/csrc/cpu/lrn.cpp.o
    output = command[command.index("-o") + 1] if "-o" in command else command[-1]
    target, _, file = output.partition(".dir/")
    line = f"{Path(target).name},{file.removesuffix('.o')},{usage.ru_utime + usage.ru_stime:.2f}\n"
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())  # whole, whoever else is writing
    os.close(descriptor)
    return status


def read(log: Path) -> dict[str, dict[str, float]]:
    """Processor seconds by file and target, as each was compiled last."""
    seconds: dict[str, dict[str, float]] = {}
    for line in log.read_text().splitlines():
        target, file, took = line.split(",")
        seconds.setdefault(file, {})[target] = float(took)
    return seconds


def markdown(seconds: dict[str, dict[str, float]], most: int | None = None) -> str:
    """By file, the targets that compile it beside each other, the longest first; ``most`` of
    them."""
    targets = sorted({target for row in seconds.values() for target in row})
    lines = [f"| file | {' | '.join(targets)} |", f"|---|{'--:|' * len(targets)}"]
    for file, row in sorted(seconds.items(), key=lambda item: -max(item[1].values()))[:most]:
        cells = [f"{row[target]:.1f}" if target in row else "" for target in targets]
        lines.append(f"| {file} | {' | '.join(cells)} |")
    totals = [sum(row.get(target, 0) for row in seconds.values()) for target in targets]
    return "\n".join([*lines, f"| all | {' | '.join(f'{total:.0f}' for total in totals)} |"])


def check(log: Path) -> int:
    """Prints the table, and returns 1 if a file took too long."""
    seconds = read(log)
    print(markdown(seconds))
    slow = [file for file, row in seconds.items() if max(row.values()) > MOST]
    print(*(f"{file} takes more than {MOST:.0f} s to compile" for file in slow), sep="\n")
    return int(bool(slow))


if __name__ == "__main__":
    log, command = Path(sys.argv[1]), sys.argv[2:]
    sys.exit(run(log, command) if command else check(log))
