"""What PyTorch's own CUDA kernels would do on the benchmark's shapes, counted without a GPU.

    pip download --no-deps torch==2.13.0        (the wheel for CUDA; nothing of it is installed)
    unzip torch-*.whl torch/lib/libtorch_cuda.so
    python bench/torch_kernels.py --library torch/lib/libtorch_cuda.so [--cases GLOB]

Each pass of tests/machine_code.py's cases is called through PyTorch on the CPU, and the operators
that it calls are taken down with their tensors. For each of them bench/torch_launches.py and
torch_composed.py say which kernels serve it on an H100, with which grid, block and parameters; the
machine code of these, read from the library, is executed by the instrument that counts this
package's own (tests/sass). What a thread writes is compared with what the operator computed, where
the thread computes it by itself alone: a kernel or a parameter that is not PyTorch's is an error.

``bench/results/model/torch_sm_90.csv`` gets a row for each kernel:

    instructions    that a thread executes, the mean over those that were looked at
    longest         those of a warp's longest thread, the mean over warps: a warp whose threads part
                    issues at least these, for each of its threads
    issue, memory   in microseconds, from ``instructions`` and ``bytes``, as tests/machine_code.py
                    has them for the kernels here: as if a thread had an issue slot of its own

A copy that the driver makes is a row without instructions. What cuDNN serves has no rows, as its
kernels are not PyTorch's: dense convolution, batch normalisation but for bfloat16, depthwise
convolution but for float32 in planes. The wheel (half a gigabyte) is too large for a test: a test
reads the file back.
"""

import argparse
import csv
import ctypes
import fnmatch
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from math import ceil, prod
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import machine_code  # noqa: E402
import torch  # noqa: E402
from folders import MODEL  # noqa: E402
from sass import listing  # noqa: E402
from sass.thread import Thread  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_map  # noqa: E402
from torch_composed import NotOwnError  # noqa: E402
from torch_iterator import TorchLaunch  # noqa: E402
from torch_launches import OPERATORS  # noqa: E402

from pydl.bench.options import LAYOUTS  # noqa: E402

VERSION = "2.13.0"
OUT = MODEL / "torch_sm_90.csv"
WARPS, UNEVEN = 8, 48  # that are looked at; where they do not execute the same
FEWEST, ENOUGH = 4, 300_000  # that suffice where their threads execute so many instructions
NO_KERNEL = {"view", "_unsafe_view", "expand", "squeeze", "unsqueeze", "slice", "detach", "alias"}
NO_KERNEL |= {"as_strided", "as_strided_", "empty", "new_empty"}


class Library:
    """libtorch_cuda.so of a wheel: its kernels for sm_90, by patterns of their names."""

    def __init__(self, file: Path, folder: Path) -> None:
        command = [listing.tool(), "-xelf", ".sm_90.cubin", str(file.resolve())]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
        self.places: dict[str, tuple[Path, str]] = {}  # demangled name: where, mangled name
        for cubin in sorted(folder.glob("*.cubin")):
            mangled = _functions(cubin)
            filtered = subprocess.run(
                ["c++filt"], input="\n".join(mangled), check=True, capture_output=True, text=True
            ).stdout.splitlines()
            for name, one in zip(filtered, mangled, strict=True):
                plain = re.sub(r"_INTERNAL_\w+::|\(anonymous namespace\)::", "", name)
                self.places[plain] = cubin, one

    @cache  # noqa: B019 - there is one library
    def kernel(self, pattern: str) -> listing.Kernel:
        """The one whose name has the pattern.

        Raises:
            LookupError: none has, or several.
        """
        found = [name for name in self.places if re.search(pattern, name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} kernels fit {pattern}: {found[:9]}")
        cubin, mangled = self.places[found[0]]
        return listing.named(cubin, "sm_90", {mangled: _short(found[0])})[_short(found[0])]


def _functions(cubin: Path) -> list[str]:
    """Mangled."""
    table = subprocess.run(
        ["readelf", "-sW", str(cubin)], check=True, capture_output=True, text=True
    ).stdout
    rows = [line.split() for line in table.splitlines() if " FUNC " in line]
    return [row[-1] for row in rows]


def _short(name: str) -> str:
    """Without namespaces, result, parameters and the numbers of lambdas."""
    name = re.sub(r"::\{lambda\([^{}]*\)#\d+\}(::operator\(\)\(\) const)?", "", name)
    name = listing.without_parameters(re.sub(r"at::native::|c10::|binary_internal::", "", name))
    while (shorter := re.sub(r"\([^()]*\)|, std::array<[^<>]*>|::operator", "", name)) != name:
        name = shorter
    return name.replace(" >", ">")


@dataclass(frozen=True)
class Call:
    """Of an operator within a pass, with what it returned."""

    operator: str
    arguments: tuple
    result: object


class Calls(TorchDispatchMode):
    """Takes down what PyTorch calls. What a GPU has and a CPU has not, bfloat16 in three
    dimensions, is computed in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        try:
            out = func(*args, **kwargs)
        except NotImplementedError:
            wide = func(*tree_map(_to(torch.bfloat16, torch.float32), args), **kwargs)
            out = tree_map(_to(torch.float32, torch.bfloat16), wide)
        if func is torch.ops.aten.max_unpool2d.default:  # always so on a GPU
            out = out.contiguous()
        if func is torch.ops.aten.native_batch_norm.default:  # what relu_ will overwrite
            made = tree_map(torch.clone, out)
        else:
            made = out
        self.calls.append(Call(func.overloadpacket._qualified_op_name.split("::")[1], args, made))
        return out


def _to(of: torch.dtype, to: torch.dtype):
    return lambda x: x.to(to) if isinstance(x, torch.Tensor) and x.dtype == of else x


def calls(case: machine_code.Case, dtype: str, layout: str, kind: str) -> list[Call]:
    """Of one pass by PyTorch, on random numbers."""
    if case.name in {one.name for one in machine_code.RECURRENT}:
        raise NotOwnError("cuDNN")
    call = machine_code.CALLS[case.name].call()
    tensors = call.random(dtype=machine_code.DTYPES[dtype], memory_format=LAYOUTS[layout], seed=1)
    leaves = [t.requires_grad_(kind == "backward") for t in tensors if t.is_floating_point()]
    with Calls() as forward:
        y = call.theirs(tensors)
    if kind == "forward":
        return forward.calls
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y)
    grad = torch.empty_like(y).copy_(grad)
    with Calls() as backward:
        torch.autograd.grad([y], leaves, [grad], allow_unused=True)
    return backward.calls


class _Memory:
    """What lies in the tensors of a launch."""

    def __init__(self, launch: TorchLaunch) -> None:
        self._ranges = [
            (t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()) for t in launch.tensors
        ]

    def __call__(self, address: int, width: int) -> bytes:
        if not any(at <= address and address + width <= at + n for at, n in self._ranges):
            raise IndexError(f"{width} bytes at {address:#x} are in no tensor of the launch")
        return ctypes.string_at(address, width)


def _thread(kernel: listing.Kernel, launch: TorchLaunch, block: int, number: int) -> Thread:
    """One thread of a block, after its end."""
    memory = _Memory(launch)
    thread, place = launch.place(block * prod(launch.block) + number)
    where = {"thread": thread, "block": place, "threads": launch.block, "blocks": launch.grid}
    one = Thread(kernel.instructions, launch.parameters, memory, jumps=kernel.jumps, **where)
    one.run()
    for address, data in one.written.items():
        memory(address, len(data))
    check(launch, one)
    return one


def check(launch: TorchLaunch, thread: Thread) -> None:
    """That a thread wrote what belongs there.

    Raises:
        AssertionError: it did not.
    """
    for address, data in thread.written.items():
        for t in launch.results:
            storage = t.untyped_storage()
            if storage.data_ptr() <= address < storage.data_ptr() + storage.nbytes():
                expected = ctypes.string_at(address, len(data))
                values = [torch.frombuffer(bytearray(b), dtype=t.dtype) for b in (data, expected)]
                rtol, atol = (2e-2, 1e-2) if t.dtype == torch.bfloat16 else (1e-4, 1e-5)
                torch.testing.assert_close(*values, rtol=rtol, atol=atol)


def warps(kernel: listing.Kernel, launch: TorchLaunch) -> list[list[int]]:
    """The instructions that each thread executes, of some warps of a launch: all warps of a block
    in turn, each of another block."""
    draw, found, total = random.Random(1), [], 0
    size, wanted = prod(launch.block), WARPS
    order = random.Random(2).sample(range(ceil(size / 32)), ceil(size / 32))
    while len(found) < wanted and (total < ENOUGH or len(found) < FEWEST):
        block, warp = draw.randrange(prod(launch.grid)), order[len(found) % len(order)]
        lanes = range(32 * warp, min(32 * warp + 32, size))
        found.append([_thread(kernel, launch, block, lane).count for lane in lanes])
        total += sum(found[-1])
        if len({sum(one) for one in found}) > 1:
            wanted = UNEVEN
    return found


@dataclass(frozen=True)
class Count:
    """A kernel of a pass; see above."""

    case: str
    kind: str
    dtype: str
    layout: str
    operator: str
    kernel: str
    grid: str
    block: str
    registers: int
    instructions: float
    longest: float
    bytes: int
    issue: float
    memory: float
    torch: str

    @property
    def key(self) -> tuple[str, ...]:
        """Of the pass."""
        return self.case, self.kind, self.dtype, self.layout


def launches(made: Sequence[Call]) -> list[tuple[str, TorchLaunch]]:
    """The kernels of these calls, each with its operator.

    Raises:
        NotOwnError: a kernel of another library serves one of them.
        NotImplementedError: it is not known what serves one of them.
    """
    out = []
    for call in made:
        if call.operator in NO_KERNEL:
            continue
        if call.operator not in OPERATORS:
            raise NotImplementedError(f"bench/torch_launches.py does not know {call.operator}")
        found = OPERATORS[call.operator](call.result, *call.arguments)
        out += [(call.operator, launch) for launch in found]
    return out


def count(
    key: tuple[str, str, str, str], library: Library, made: Sequence[Call]
) -> Iterator[Count]:
    """A row for each kernel of a pass."""
    case, kind, dtype, layout = key
    for operator, launch in launches(made):
        name, registers, instructions, longest = "copy by the driver", 0, 0.0, 0.0
        if launch.kernel:
            kernel = library.kernel(launch.kernel)
            name, registers = kernel.name, kernel.registers
            counts = warps(kernel, launch)
            instructions = fmean(count for warp in counts for count in warp)
            longest = fmean(max(warp) for warp in counts)
        yield Count(
            *(case, kind, dtype, layout, operator, name),
            "x".join(map(str, launch.grid)),
            "x".join(map(str, launch.block)),
            registers,
            round(instructions, 1),
            round(longest, 1),
            launch.bytes,
            round(instructions * launch.threads / machine_code.ISSUE * 1e6, 3),
            round(launch.bytes / machine_code.MEMORY * 1e6, 3),
            VERSION,
        )


def read() -> list[Count]:
    """The file as it lies there."""
    with OUT.open(newline="", encoding="utf-8") as file:
        kinds = {one.name: one.type for one in fields(Count)}
        return [
            Count(**{name: kinds[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]


def write(rows: Sequence[Count]) -> None:
    """Takes the rows down, in place of those of the same cases."""
    cases = {row.case for row in rows}
    kept = [row for row in read() if row.case not in cases] if OUT.exists() else []
    order = [case.name for case in machine_code.CASES]
    everything = sorted([*kept, *rows], key=lambda row: order.index(row.case))
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(one.name for one in fields(Count))
        for row in everything:
            values = asdict(row).values()
            writer.writerow(f"{v:g}" if isinstance(v, float) else v for v in values)


def main(argv: Sequence[str] | None = None) -> int:
    """Counts and writes; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--library", type=Path, required=True, help="libtorch_cuda.so of the wheel")
    parser.add_argument("--cases", default="*", metavar="GLOB", help="of tests/machine_code.py")
    chosen = parser.parse_args(argv)
    if listing.tool() is None or not chosen.library.exists():
        what = (
            chosen.library if listing.tool() else "cuobjdump: it comes with CUDA, and with Triton"
        )
        print(f"no {what}", file=sys.stderr)
        return 1
    if torch.__version__.partition("+")[0] != VERSION:
        print(f"the kernels are of PyTorch {VERSION}, here is {torch.__version__}", file=sys.stderr)
        return 1
    cases = [one for one in machine_code.CASES if fnmatch.fnmatchcase(one.name, chosen.cases)]
    rows: list[Count] = []
    with tempfile.TemporaryDirectory() as folder:
        library = Library(chosen.library, Path(folder))
        for case in cases:
            for dtype, layout in case.settings:
                for kind in case.passes:
                    key = case.name, kind, dtype, layout
                    try:
                        rows += count(key, library, calls(case, dtype, layout, kind))
                    except (NotOwnError, NotImplementedError) as error:
                        print(*key, f"left out: {error}", sep=", ")
                    else:
                        print(*key, sep=", ", flush=True)
    write(rows)
    print(f"{OUT.relative_to(ROOT)}: {len(rows)} kernels counted")
    return 0


if __name__ == "__main__":
    sys.exit(main())
