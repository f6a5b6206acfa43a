"""Every Triton kernel compiles for sm_80 and sm_90 in every configuration it can choose, without a
GPU and without spills.

The kernels' own launchers are called on tensors of the meta device, and what they would launch is
compiled instead: the configurations are those that real calls of these shapes get. Compilation
needs Triton without its interpreter, so it happens in two processes of this file run as a script;
``python tests/test_cubins.py`` does the same and prints the table.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

TARGETS = {
    80: 163 * 1024,
    90: 227 * 1024,
}  # the most shared memory a block of that architecture may have
PROCESSES = 2
# Bytes of local memory a thread: some versions of ptxas spill up to four registers to fit one block
# more on a processor.
SPILLED = 16
HALF, BF16, FLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@dataclass(frozen=True)
class Case:
    """A call of a launcher. The product of all choices would take an hour; the reason says which
    choice this one covers."""

    reason: str
    dtype: torch.dtype
    call: Callable[[], Any]


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
    matrix_units: bool = False
    seconds: float = 0.0
    error: str = ""


def _map(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> torch.Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    format = formats[len(shape)] if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=format)


def _conv_cases() -> Iterator[Case]:
    from pydl.kernels import conv, conv_tiles

    def passes(reason, dtype, x_shape, weight_shape, last, stride=1, groups=1):
        axes = len(x_shape) - 2
        x, weight = _map(x_shape, dtype, last), _map(weight_shape, dtype, last)
        bias = torch.empty(weight_shape[0], dtype=dtype, device="meta")
        window = [stride] * axes, [weight_shape[-1] // 2] * axes, [1] * axes, groups
        y = conv.layout.conv_output(x, weight, *window[:3])
        lies = "channels last" if last else "contiguous"
        yield Case(
            f"y: {reason}, {lies}",
            dtype,
            lambda: conv.conv_forward(x, weight, bias, None, *window, "none", 0.0),
        )
        yield Case(
            f"grad x: {reason}, {lies}",
            dtype,
            lambda: conv.conv_grad_input(y, weight, x_shape[2:], *window),
        )
        yield Case(
            f"grad w: {reason}, {lies}",
            dtype,
            lambda: conv.conv_grad_weight(y, x, weight_shape[2:], *window),
        )

    # Every row of the table in both layouts; bfloat16 has float16's instructions and registers, so
    # its widest row is enough.
    for dtype in (HALF, FLOAT, DOUBLE):
        for _, channels, *_ in conv_tiles.TILES[dtype.itemsize]:
            shape, weight = (8, channels, 28, 28), (channels, channels, 3, 3)
            yield from passes(f"{channels} channels", dtype, shape, weight, last=True)
            yield from passes(f"{channels} channels", dtype, shape, weight, last=False)
        yield from passes(
            "few channels merge with the taps",
            dtype,
            (8, 3, 64, 64),
            (32, 3, 7, 7),
            last=False,
            stride=2,
        )
    yield from passes("bfloat16", BF16, (8, 128, 28, 28), (128, 128, 3, 3), last=True)
    yield from passes("depthwise", HALF, (8, 64, 28, 28), (64, 1, 3, 3), last=True, groups=64)
    yield from passes("three axes", HALF, (4, 32, 8, 28, 28), (32, 32, 3, 3, 3), last=True)
    yield from passes("stride two", HALF, (8, 64, 28, 28), (64, 64, 3, 3), last=True, stride=2)
    yield from passes("64-bit offsets", HALF, (2**13, 128, 64, 64), (128, 128, 3, 3), last=True)
    yield from passes("64-bit offsets", FLOAT, (2**13, 64, 64, 64), (64, 64, 3, 3), last=False)
    yield from passes("the smallest problem", HALF, (1, 16, 2, 2), (16, 16, 1, 1), last=True)
    for dtype, last in ((HALF, True), (FLOAT, False), (DOUBLE, True)):
        y = _map((8, 96, 28, 28), dtype, last)
        yield Case(
            f"grad bias, {'channels last' if last else 'contiguous'}",
            dtype,
            lambda y=y: conv.conv_grad_bias(y),
        )


def _pool_cases() -> Iterator[Case]:
    from pydl.kernels import pool

    def max_pool(reason, dtype, shape, kernel, stride, index, last):
        x, axes = _map(shape, dtype, last), len(shape) - 2
        window = [kernel] * axes, [stride] * axes, [kernel // 2] * axes, [1] * axes
        out = [(n + 2 * (kernel // 2) - kernel) // stride + 1 for n in shape[2:]]
        y = pool.layout.resized(x, out)
        indices = pool.layout.resized(x, out, dtype=torch.int64 if index == "flat" else torch.uint8)
        lies = f"{index} index, {'channels last' if last else 'contiguous'}"
        yield Case(
            f"max y: {reason}, {lies}", dtype, lambda: pool.max_pool_forward(x, *window, out, index)
        )
        if index != "none":
            yield Case(
                f"max grad x: {reason}, {lies}",
                dtype,
                lambda: pool.max_pool_backward(y, indices, shape[2:], *window),
            )

    def avg_pool(reason, dtype, shape, kernel, stride, last, divide=(True, 0)):
        x, axes = _map(shape, dtype, last), len(shape) - 2
        window = [kernel] * axes, [stride] * axes, [0] * axes
        out = [(n - kernel) // stride + 1 for n in shape[2:]]
        y = pool.layout.resized(x, out)
        lies = "channels last" if last else "contiguous"
        yield Case(
            f"avg y: {reason}, {lies}",
            dtype,
            lambda: pool.avg_pool_forward(x, *window, out, *divide),
        )
        yield Case(
            f"avg grad x: {reason}, {lies}",
            dtype,
            lambda: pool.avg_pool_backward(y, shape[2:], *window, *divide),
        )

    plane = (8, 64, 56, 56)
    for dtype in (HALF, FLOAT):  # all that is unrolled, in both layouts
        yield from max_pool("3 x 3, stride 2", dtype, plane, 3, 2, "offset", last=True)
        yield from max_pool("3 x 3, stride 2", dtype, plane, 3, 2, "offset", last=False)
        yield from avg_pool("2 x 2, stride 2", dtype, plane, 2, 2, last=True)
        yield from avg_pool("2 x 2, stride 2", dtype, plane, 2, 2, last=False, divide=(False, 0))
    yield from max_pool("inference", BF16, plane, 2, 2, "none", last=False)
    yield from max_pool("PyTorch's index", FLOAT, plane, 2, 2, "flat", last=False)
    yield from max_pool("PyTorch's index", DOUBLE, plane, 3, 2, "flat", last=True)
    yield from max_pool("a loop over the taps", FLOAT, plane, 13, 1, "offset", last=False)
    yield from max_pool("three axes", HALF, (2, 32, 8, 28, 28), 3, 2, "offset", last=True)
    yield from max_pool("64-bit offsets", HALF, (2**13, 64, 64, 64), 3, 2, "offset", last=True)
    yield from avg_pool("a loop over the taps", FLOAT, (8, 64, 7, 7), 7, 1, last=True)
    yield from avg_pool("a divisor", DOUBLE, plane, 3, 2, last=False, divide=(True, 5))
    yield from avg_pool("64-bit offsets", FLOAT, (2**13, 64, 64, 64), 2, 2, last=False)


def _lrn_cases() -> Iterator[Case]:
    from pydl.kernels import lrn

    def both(reason, dtype, last, size=5, beta=0.75, shape=(8, 96, 55, 55)):
        x = _map(shape, dtype, last)
        arguments = size, 1e-4, beta, 2.0
        lies = "channels last" if last else "contiguous"
        yield Case(f"y: {reason}, {lies}", dtype, lambda: lrn.lrn_forward(x, *arguments))
        yield Case(f"grad x: {reason}, {lies}", dtype, lambda: lrn.lrn_backward(x, x, *arguments))

    for dtype in (HALF, FLOAT, DOUBLE):
        yield from both("AlexNet's", dtype, last=True)
        yield from both("AlexNet's", dtype, last=False)
    yield from both("the widest window that is unrolled", FLOAT, last=False, size=lrn.UNROLLED_SIZE)
    yield from both("a window in a loop", FLOAT, last=True, size=lrn.UNROLLED_SIZE + 1)
    yield from both("any beta", FLOAT, last=True, beta=0.6)
    yield from both("any beta", DOUBLE, last=False, beta=0.6)
    yield from both("64-bit offsets", BF16, last=True, shape=(2**13, 96, 55, 55))


def _specialise(value: Any, path: tuple[int, ...], constants: dict, attributes: dict) -> Any:
    """The type Triton's launcher gives an argument: 1 and None are constants, multiples of 16 are
    known as such."""
    from triton.runtime.jit import mangle_type

    if isinstance(value, tuple):
        return tuple(
            _specialise(item, (*path, i), constants, attributes) for i, item in enumerate(value)
        )
    if value is None or (isinstance(value, int) and value == 1):
        constants[path] = value
        return "constexpr"
    if isinstance(value, torch.Tensor) or value % 16 == 0:
        attributes[path] = [["tt.divisibility", 16]]
    return mangle_type(value)


def _specialisation(launch: tuple) -> tuple[Any, dict, dict, dict, dict]:
    """A launch as Triton compiles it: kernel, types by name, constants and attributes by position,
    options."""
    kernel, arguments, named = launch
    named = dict(zip(kernel.arg_names, arguments, strict=False)) | named
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = named.pop(parameter.name)
        if parameter.is_constexpr:
            constants[i,] = value
            signature[parameter.name] = "constexpr"
        else:
            signature[parameter.name] = _specialise(value, (i,), constants, attributes)
    return kernel, signature, constants, attributes, named


def _compile(case: Case, target: int, specialisation: tuple, directory: Path) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, signature, constants, attributes, options = specialisation
    names = {path[0]: kernel.arg_names[path[0]] for path in constants}
    tile = [
        constants[i,]
        for i, name in names.items()
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
        source = ASTSource(kernel, signature, constants, attributes)
        compiled = triton.compile(
            source,
            target=GPUTarget("cuda", target, 32),
            options={"enable_fp_fusion": True, **options},
        )
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
    out.matrix_units = "mma" in compiled.asm["ptx"]
    return out


def _compile_share(share: int) -> None:
    """Compiles every PROCESSES-th case and prints what became of each as a line of JSON."""
    from pydl.kernels import runtime

    launches: list[tuple] = []
    seen: set[str] = set()
    runtime.launch = lambda kernel, count, device, *arguments, **named: launches.append(
        (kernel, arguments, named)
    )
    with tempfile.TemporaryDirectory() as directory:
        for case in [*_conv_cases(), *_pool_cases(), *_lrn_cases()][share::PROCESSES]:
            launches.clear()
            case.call()
            assert launches, f"{case.reason} launched nothing"
            for specialisation in map(_specialisation, launches):
                name = str(specialisation)
                for target in TARGETS if name not in seen else ():
                    print(
                        json.dumps(asdict(_compile(case, target, specialisation, Path(directory)))),
                        flush=True,
                    )
                seen.add(name)


def compile_all() -> list[Compiled]:
    """Compiles all cases in PROCESSES processes, into a cache that starts empty."""
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(PROCESSES) as pool:
        environment = {
            name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"
        }
        environment["TRITON_CACHE_DIR"] = cache

        def run(share: int) -> list[str]:
            command = [sys.executable, __file__, str(share)]
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
        product = row.kernel in ("conv_kernel", "conv_grad_weight_kernel")
        if row.error:
            out.append(f"{name} does not compile: {row.error}")
        elif row.local > SPILLED:
            out.append(f"{name} spills: {row.local} bytes of local memory a thread")
        elif row.shared > TARGETS[row.target]:
            out.append(
                f"{name} wants {row.shared} bytes of shared memory, a block may have "
                f"{TARGETS[row.target]}"
            )
        elif product and row.dtype in ("float16", "bfloat16") and not row.matrix_units:
            out.append(f"{name} does not use the tensor cores: no mma in its PTX")
    return out


@pytest.mark.slow
def test_every_configuration_compiles():
    from pydl.kernels import conv_tiles

    rows = compile_all()
    print(table(rows))
    problems = faults(rows)
    assert not problems, "\n".join(problems)
    chosen = {row.tile for row in rows if row.kernel == "conv_kernel"}
    wanted = {f"{m} x {n} x {k}" for tiles in conv_tiles.TILES.values() for m, n, k, *_ in tiles}
    assert wanted <= chosen, f"no case reaches the tiles {sorted(wanted - chosen)}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _compile_share(int(sys.argv[1]))
    else:
        results = compile_all()
        print(table(results))
        sys.exit("\n".join(faults(results)) or 0)
