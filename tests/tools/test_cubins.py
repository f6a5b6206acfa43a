"""Every Triton kernel compiles for sm_80, sm_90 and sm_100 in every configuration it can choose,
without a GPU and without spills.

The kernels' own launchers are called on tensors of the meta device, and what they would launch is
compiled instead: the configurations are those that real calls of these shapes get. The suite takes
one configuration of each kernel, for one architecture after the other; ``--whole`` and ``make
cubins``, which prints the table and is part of CI, compile every one for all. Compilation needs
Triton without its interpreter, so it happens in two processes of this file run as a script.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from cubin_cases import Case, cases
from specialisation import Specialisation, specialisation

from pydl.contract.rnn import GATES

TARGETS = {
    80: 163 * 1024,
    90: 227 * 1024,
    100: 227 * 1024,
}  # the most shared memory a block of that architecture may have
PROCESSES = 2
# The kernels that are to use the tensor cores.
PRODUCTS = (
    "conv_kernel",
    "conv_grad_weight_kernel",
    "rnn_product_kernel",
    "rnn_sequence_forward_kernel",
    "rnn_sequence_backward_kernel",
)


@dataclass
class Compiled:
    """What became of one kernel of a case."""

    kernel: str
    dtype: str
    reason: str
    target: int
    tile: str
    registers: int = 0
    local: int = 0
    shared: int = 0
    promised: int | None = None  # the most shared memory, where the launcher counts on it
    matrix_units: bool = False
    wants_matrix_units: bool = False
    seconds: float = 0.0
    error: str = ""


def _compile(case: Case, target: int, launched: Specialisation, directory: Path) -> Compiled:
    import triton

    kernel = launched.kernel
    tile = [
        launched.constant(name)
        for name in kernel.arg_names
        if name.startswith("BLOCK") or name in ("ROWS", "COLUMNS")
    ]
    out = Compiled(
        kernel.__name__,
        str(case.dtype).removeprefix("torch."),
        case.reason,
        target,
        " x ".join(map(str, tile)),
    )
    start = time.perf_counter()
    try:
        compiled = launched.compiled(target)
    except Exception as error:
        out.error = f"{type(error).__name__}: {error}"
        return out
    out.seconds = time.perf_counter() - start
    cubin = directory / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    usage = subprocess.run(
        [triton.knobs.nvidia.cuobjdump.path, "-res-usage", cubin],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    figures = dict(
        item.split(":") for item in usage if item.count(":") == 1 and item.split(":")[1].isdigit()
    )
    out.registers = int(figures["REG"])
    out.local = int(figures["LOCAL"]) + int(figures["STACK"])
    out.shared = compiled.metadata.shared
    out.promised = _promised(launched, case.dtype)
    out.matrix_units = "mma" in compiled.asm["ptx"]
    precision = launched.constant("INPUT_PRECISION")
    # Of float64 Triton makes no matrix instructions for sm_100.
    double = case.dtype == torch.float64 and target == 100
    out.wants_matrix_units = not double and (case.dtype != torch.float32 or precision == "tf32")
    return out


def _promised(launched: Specialisation, dtype: torch.dtype) -> int | None:
    """What rnn_sequence.in_reach counts on."""
    from pydl.kernels import rnn_sequence

    if not launched.kernel.__name__.startswith("rnn_sequence"):
        return None
    gates, block = GATES[launched.constant("CELL")], launched.constant("COLUMNS")
    return rnn_sequence.shared_wanted(gates, block, dtype.itemsize)


def _chosen(
    found: list[tuple[Case, Specialisation]], whole: bool
) -> Iterator[tuple[Case, Specialisation, tuple[int, ...]]]:
    """What is compiled, and for which architectures: everything for all, or of each kernel one
    configuration for one, kernel after kernel another."""
    if whole:
        yield from ((case, launched, tuple(TARGETS)) for case, launched in found)
        return
    kernels: dict[str, list] = {}
    for case, launched in found:
        kernels.setdefault(launched.kernel.__name__, []).append((case, launched))
    for number, configurations in enumerate(kernels.values()):
        target = tuple(TARGETS)[number % len(TARGETS)]
        yield (*configurations[number % len(configurations)], (target,))


def _compile_share(share: int, whole: bool) -> None:
    """Compiles every PROCESSES-th of the chosen and prints what became of each as a line of
    JSON."""
    from pydl.kernels import runtime

    launches: list[Specialisation] = []
    found: dict[str, tuple[Case, Specialisation]] = {}
    runtime.launch = lambda kernel, count, device, *arguments, **named: launches.append(
        specialisation(kernel, arguments, named)
    )
    for case in cases():
        launches.clear()
        case.call()
        assert launches, f"{case.reason} launched nothing"
        for launched in launches:
            found.setdefault(launched.key, (case, launched))
    with tempfile.TemporaryDirectory() as directory:
        for case, launched, targets in list(_chosen([*found.values()], whole))[share::PROCESSES]:
            for target in targets:
                compiled = _compile(case, target, launched, Path(directory))
                print(json.dumps(asdict(compiled)), flush=True)


def compile_all(whole: bool) -> list[Compiled]:
    """Compiles all cases, for all architectures where ``whole``, in PROCESSES processes, into a
    cache that starts empty."""
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(PROCESSES) as pool:
        environment = {
            name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"
        }
        environment["TRITON_CACHE_DIR"] = cache

        def run(share: int) -> list[str]:
            command = [sys.executable, __file__, str(share), *(["--whole"] if whole else [])]
            return subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            ).stdout.splitlines()

        shares = list(pool.map(run, range(PROCESSES)))
    return [Compiled(**json.loads(line)) for share in shares for line in share]


def table(rows: list[Compiled]) -> str:
    lines = [
        f"{'kernel':26} {'dtype':9} {'sm':3} {'tile':14} {'regs':>4} {'local':>5} {'shared':>7} "
        f"{'mma':3} {'s':>4}  case"
    ]
    for row in sorted(rows, key=lambda row: (row.kernel, row.dtype, row.reason, row.target)):
        lines.append(
            f"{row.kernel:26} {row.dtype:9} {row.target:3} {row.tile:14} {row.registers:4} "
            f"{row.local:5} {row.shared:7} "
            f"{'yes' if row.matrix_units else '':3} {row.seconds:4.1f}  "
            f"{row.reason}{row.error and ' FAILED'}"
        )
    return "\n".join(lines)


def faults(rows: list[Compiled]) -> list[str]:
    """What is wrong with these, a sentence each."""
    out = []
    for row in rows:
        name = f"{row.kernel} in {row.dtype} for sm_{row.target} ({row.reason})"
        product = row.kernel in PRODUCTS
        if row.error:
            out.append(f"{name} does not compile: {row.error}")
        elif row.local > 0:
            out.append(f"{name} spills: {row.local} bytes of local memory a thread")
        elif row.shared > TARGETS[row.target]:
            out.append(
                f"{name} wants {row.shared} bytes of shared memory, a block may have "
                f"{TARGETS[row.target]}"
            )
        elif row.promised is not None and row.shared > row.promised:
            out.append(
                f"{name} takes {row.shared} bytes of shared memory, its launcher counts on "
                f"{row.promised}"
            )
        elif product and row.wants_matrix_units and not row.matrix_units:
            out.append(f"{name} does not use the tensor cores: no mma in its PTX")
    return out


@pytest.mark.slow
def test_every_configuration_compiles(pytestconfig):
    from pydl.kernels import conv_tiles

    whole = pytestconfig.getoption("--whole")
    rows = compile_all(whole)
    print(table(rows))
    problems = faults(rows)
    assert not problems, "\n".join(problems)
    if not whole:
        return
    chosen = {row.tile for row in rows if row.kernel == "conv_kernel"}
    wanted = {
        f"{m} x {n} x {k}"
        for (_, problem, _), tiles in conv_tiles.TILES.items()
        for m, n, k, *_ in tiles
        if problem != "depthwise"
    }
    assert wanted <= chosen, f"no case reaches the tiles {sorted(wanted - chosen)}"


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1].isdigit():
        _compile_share(int(sys.argv[1]), "--whole" in sys.argv)
    else:
        results = compile_all(whole=True)
        print(table(results))
        sys.exit("\n".join(faults(results)) or 0)
