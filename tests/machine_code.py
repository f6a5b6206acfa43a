"""What the compiled CUDA kernels do on the benchmark's shapes, counted without a GPU, and the times
below which an H100 cannot run them.

    python tests/machine_code.py [--cases GLOB] [--objects DIR] [--write]    (`pydl roofline`)

Each case is called through the package, and what it launches is recorded instead of run
(tests/sass/launches.py). The machine code of each kernel, from the objects that `make nvcc` leaves,
is then executed for a few of the launch's threads (tests/sass/thread.py), through its loops and
branches, with random numbers for what is loaded. Where a kernel finds the ends of its loops in
shared memory, all threads of a block go to their first barrier, so that those that are counted find
what the others put there. What a guard holds back is issued too and counts.
Lanes of a warp are taken to go one way: where they part, the true count is higher. A load or store
outside the tensors of the call is an error.

The issue bound is the time in which all schedulers issue these instructions, one a clock and warp;
the memory bound that in which the tensors that a kernel is given are moved once.
tests/tools/machine_code.csv has the figures as they are to be, and a test fails where one is worse.
After a change that is better, or has to be worse, --write takes them down.
"""

import argparse
import csv
import ctypes
import fnmatch
import random
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from math import prod
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sass import listing  # noqa: E402
from sass.launches import Launch, recorded  # noqa: E402
from sass.thread import Thread  # noqa: E402

from pydl import functional  # noqa: E402
from pydl.bench.cases import CASES as BENCHED  # noqa: E402
from pydl.bench.options import LAYOUTS  # noqa: E402
from pydl.native import conv  # noqa: E402

ARCHITECTURE = "sm_90a"
OBJECTS = ROOT / "build/cmake"
TABLE = ROOT / "tests/tools/machine_code.csv"
ISSUE = 132 * 4 * 32 * 1.755e9  # multiprocessors x schedulers x lanes x clocks a second
MEMORY = 3.35e12  # bytes a second
# Threads of a launch, and of one whose blocks share work, unevenly; or fewer that execute so many
# instructions.
SAMPLES, OF_BLOCKS, ENOUGH = 4, 64, 40_000
# Files with loops whose ends other threads of the block have put in shared memory.
STEERED = ("pool_adaptive_dense", "pool_adaptive_dense_backward")


KINDS = ("forward", "backward")
Record = Callable[[Callable[[], object]], list[Launch]]
FLOATS, HALVES = (("float32", "nchw"),), (("bfloat16", "channels_last"),)
TF32 = (("tf32", "channels_last"),)  # float32, its products rounded
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Recurrent:
    """A layer of bench/rnn.py, of few steps, since one is as the other; the inputs' products are
    PyTorch's own."""

    name: str
    operator: str
    batch: int
    input: tuple[int, int]  # T, H
    boxes: None = None
    grad_input: bool = True

    def call(self) -> "Recurrent":
        return self

    def empty(self, *, dtype: torch.dtype) -> list[torch.Tensor]:
        steps, units = self.input
        gates = 4 * units
        shapes = (steps, self.batch, units), (gates, units), (gates, units), (gates,), (gates,)
        return [torch.empty(shape, dtype=dtype) for shape in shapes]

    def ours(self, tensors: Sequence[torch.Tensor], backend: str) -> torch.Tensor:
        return getattr(functional, self.operator)(*tensors, backend=backend)[0]


RECURRENT = (Recurrent("LSTM-8x32x256", "lstm", 32, (8, 256)),)
CALLS = {one.name: one for one in (*BENCHED, *RECURRENT)}


@dataclass(frozen=True)
class Case:
    """One of CALLS in each of these (dtype, layout)."""

    name: str
    settings: tuple[tuple[str, str], ...] = FLOATS + HALVES
    passes: tuple[str, ...] = KINDS


CASES = (
    Case("alexnet.lrn1"),
    Case("alexnet.pool1"),
    Case("alexnet.average1"),
    Case("alexnet.l2pool1"),
    Case("googlenet.avgpool"),
    Case("resnet50.avgpool"),
    Case("vgg16.avgpool"),
    Case("vgg16.maxpool"),
    Case("sppnet.pyramid1236"),
    Case("sppnet.pyramid421"),
    Case("segnet.unpool1"),
    Case("classifier.relu-4096"),
    Case("resnet50.layer1.0.bn1+relu"),
    Case("mobilenetv2.depthwise-144-56"),
    Case("vgg16.conv3_2", HALVES),
    Case("resnet50.layer1.0.conv1", HALVES + TF32),
    Case("alexnet.conv1", passes=("forward",)),
    Case("deepface.l6"),
    # Backward a block lists the boxes that reach it by votes of warps, which are not executed here.
    Case("maskrcnn.roi_align", passes=("forward",)),
    Case("fasterrcnn.nms-2000", FLOATS, ("forward",)),
    Case("LSTM-8x32x256"),
)


@dataclass(frozen=True)
class Count:
    """A kernel of a case. Of a thread, on average: ``instructions`` (``longest``: the most of any
    that was looked at), ``loads`` from global memory, of ``width`` bytes, of which ``in_flight``
    are on their way when one is first needed, and ``barriers`` of the block. ``per_product``:
    instructions for each HMMA of the densest loop. ``issue`` and ``memory`` in microseconds."""

    case: str
    kind: str
    dtype: str
    layout: str
    kernel: str
    registers: int
    spilled: int
    instructions: float
    longest: float
    loads: float
    width: float
    in_flight: float
    barriers: float
    per_product: float
    issue: float
    memory: float

    @property
    def key(self) -> tuple[str, ...]:
        return self.case, self.kind, self.dtype, self.layout, self.kernel

    def worse(self, than: "Count") -> list[str]:
        """In which figures, in words; compilers of other versions may differ by two percent."""
        more = ("registers", "spilled", "instructions", "longest", "loads", "barriers")
        more = (*more, "per_product", "memory")
        out = [name for name in more if getattr(self, name) > 1.02 * getattr(than, name)]
        less = ("width", "in_flight")
        out += [name for name in less if getattr(self, name) < 0.98 * getattr(than, name)]
        return [f"{name} {getattr(self, name):g}, was {getattr(than, name):g}" for name in out]


class _Memory:
    """Random numbers between a half and one and a half in the tensors of floating point, random
    bytes in those of bytes, zeros in others; in those that a launch calls real, what is there; and,
    where ``exchanged``, at addresses that threads hand each other in shared memory, of which a lone
    one reads zero."""

    def __init__(self, launch: Launch, seed: int, exchanged: bool) -> None:
        self._exchanged = exchanged
        self._ranges = [
            (t.untyped_storage().data_ptr(), t.untyped_storage().nbytes(), t.dtype)
            for t in launch.tensors
        ]
        self._real = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in launch.real]
        self._random = random.Random(seed)

    def dtype(self, address: int, width: int) -> torch.dtype:
        if self._exchanged and address < 1 << 32:
            return torch.int64
        for start, size, dtype in self._ranges:
            if start <= address and address + width <= start + size:
                return dtype
        raise IndexError(f"{width} bytes at {address:#x} are in no tensor of the call")

    def __call__(self, address: int, width: int) -> bytes:
        dtype = self.dtype(address, width)
        if any(start <= address < end for start, end in self._real):
            return ctypes.string_at(address, width)
        if not dtype.is_floating_point:
            return self._random.randbytes(width) if dtype.itemsize == 1 else bytes(width)
        values = [0.5 + self._random.random() for _ in range(width // dtype.itemsize)]
        if dtype == torch.bfloat16:
            return b"".join(struct.pack("<f", value)[2:] for value in values)
        code = {torch.float64: "d", torch.float32: "f", torch.float16: "e"}[dtype]
        return struct.pack(f"<{len(values)}{code}", *values)


def launches(
    case: Case, dtype: str, layout: str, kind: str, backend: str = "cuda", record: Record = recorded
) -> list[Launch]:
    """Those of one pass."""
    call = CALLS[case.name].call()
    given = call.empty if call.boxes is None else call.random  # boxes say which way a thread goes
    tensors = [
        t.contiguous(memory_format=LAYOUTS[layout]) if t.ndim == 4 else t
        for t in given(dtype=DTYPES[dtype])
    ]
    with patch.object(conv, "allows_tf32", lambda _: dtype == "tf32"):
        if kind == "forward":
            found = record(lambda: call.ours(tensors, backend))
        else:
            floats = [t for t in tensors if t.is_floating_point()]
            leaves = floats[:1] if call.boxes is not None else floats[not call.grad_input :]
            made: list[torch.Tensor] = []
            for leaf in leaves:
                leaf.requires_grad_()
            record(lambda: made.append(call.ours(tensors, backend)))
            gradient = [torch.empty_like(made[0])]
            found = record(lambda: torch.autograd.grad(made, leaves, gradient))
    if call.boxes is None:
        return found
    sizes = 4 * call.boxes, 5 * call.boxes
    return [replace(one, real=tuple(t for t in one.tensors if t.numel() in sizes)) for one in found]


def executed(
    kernel: listing.Kernel,
    launch: Launch,
    number: int,
    seed: int = 0,
    shared: dict[int, int] | None = None,
    *,
    to_barrier: bool = False,
    exchanged: bool = False,
) -> Thread:
    """One of the launch's threads, after its end or at its first barrier."""
    memory = _Memory(launch, seed, exchanged)
    thread, block = launch.place(number)
    sizes = {"threads": launch.block, "blocks": launch.grid}
    where = {"thread": thread, "block": block, **sizes, "shared": shared}
    one = Thread(kernel.instructions, launch.parameters, memory, jumps=kernel.jumps, **where)
    one.run(to_barrier=to_barrier)
    for address, data in one.written.items():
        memory.dtype(address, len(data))
    return one


def sampled(kernel: listing.Kernel, launch: Launch, exchanged: bool = False) -> list[Thread]:
    """Some of the launch's threads, after their end."""
    draw, block = random.Random(1), prod(launch.block)
    if launch.file in STEERED and not exchanged:  # evenly from one block
        shared: dict[int, int] = {}
        first = draw.randrange(launch.threads) // block * block
        for number in range(first, first + block):
            executed(kernel, launch, number, number, shared, to_barrier=True)
        apart = block // OF_BLOCKS
        numbers = range(first + apart // 2, first + block, apart)
        return [executed(kernel, launch, number, number, dict(shared)) for number in numbers]
    threads: list[Thread] = []
    wanted = SAMPLES
    while len(threads) < wanted and sum(one.count for one in threads) < ENOUGH:
        number = draw.randrange(launch.threads)
        one = executed(kernel, launch, number, len(threads), exchanged=exchanged)
        threads.append(one)
        wanted = OF_BLOCKS if threads[0].barriers else SAMPLES
    return threads


def figures(kernel: listing.Kernel, launch: Launch, exchanged: bool = False) -> dict[str, float]:
    """What a row says of a launch."""
    threads = sampled(kernel, launch, exchanged)
    instructions = fmean(one.count for one in threads)
    loads = sum(one.loads.total() for one in threads)
    loaded = sum(width * times for one in threads for width, times in one.loads.items())
    waits = sum(one.waits for one in threads)
    out = {
        "instructions": instructions,
        "longest": max(one.count for one in threads),
        "loads": loads / len(threads),
        "width": loaded / max(loads, 1),
        "in_flight": loads / max(waits, 1),
        "barriers": fmean(one.barriers for one in threads),
        "per_product": kernel.per_product or 0,
        "issue": instructions * launch.threads / ISSUE * 1e6,
        "memory": launch.bytes / MEMORY * 1e6,
    }
    return {name: round(value, 2) for name, value in out.items()}


def named(found: Sequence[Launch]) -> Iterator[tuple[str, Launch]]:
    """The launches of a pass, each with the name of its row: a kernel's second is numbered."""
    times: Counter[str] = Counter()
    for launch in found:
        name = f"{launch.file}: {launch.kernel}"
        times[name] += 1
        yield name if times[name] == 1 else f"{name}, {times[name]}", launch


def count(case: Case, dtype: str, layout: str, kind: str, objects: Path) -> Iterator[Count]:
    """A row for each launch of a pass."""
    for name, launch in named(launches(case, dtype, layout, kind)):
        kernel = _kernel(objects / f"cuda_{launch.file}.o", launch.kernel)
        yield Count(
            case.name,
            kind,
            dtype,
            layout,
            name,
            kernel.registers,
            kernel.spilled,
            **figures(kernel, launch),
        )


@cache
def _kernel(file: Path, name: str) -> listing.Kernel:
    return listing.read(file, ARCHITECTURE, {name})[name]


def counted(pattern: str = "*", objects: Path = OBJECTS) -> Iterator[Count]:
    """The rows of every case whose name fits.

    Raises:
        FileNotFoundError: there are no objects.
        RuntimeError: there is nothing to read them with.
    """
    if listing.tool() is None:
        raise RuntimeError("no cuobjdump: it comes with CUDA, and with Triton")
    if not any(objects.glob("cuda_*.o")):
        raise FileNotFoundError(f"no machine code in {objects}: `make nvcc` compiles it")
    for case in CASES:
        if fnmatch.fnmatchcase(case.name, pattern):
            for dtype, layout in case.settings:
                for kind in case.passes:
                    yield from count(case, dtype, layout, kind, objects)


def read(table: Path = TABLE) -> dict[tuple[str, ...], Count]:
    """A table, by key."""
    numbers = [one.name for one in fields(Count) if one.type in (int, float)]
    with table.open(newline="", encoding="utf-8") as file:
        rows = [
            Count(**{name: float(v) if name in numbers else v for name, v in row.items()})
            for row in csv.DictReader(file)
        ]
    return {row.key: row for row in rows}


def write(rows: Sequence[Count], table: Path = TABLE, of: Sequence[Case] = CASES) -> None:
    """Takes the rows down, in place of those of the same cases."""
    cases = {row.case for row in rows}
    kept = [row for row in read(table).values() if row.case not in cases] if table.exists() else []
    order = [case.name for case in of]
    everything = sorted([*kept, *rows], key=lambda row: order.index(row.case))
    with table.open("w", newline="", encoding="utf-8") as file:
        names = [one.name for one in fields(Count)]
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in everything:
            cells = asdict(row)
            writer.writerow({n: f"{v:g}" if isinstance(v, float) else v for n, v in cells.items()})


def show(rows: Sequence[Count]) -> None:
    """A table for a person, a line a kernel."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Of a thread; bounds in microseconds, on an H100", title_justify="left")
    table.add_column("kernel", no_wrap=True)
    heads = ("instructions", "loads", "in flight", "barriers", "registers", "per HMMA")
    for head in (*heads, "issue", "memory", "issue / memory"):
        table.add_column(head, justify="right")
    last = None
    for row in rows:
        where = f"[bold]{row.case}, {row.kind}, {row.dtype}, {row.layout}[/]"
        if where != last:
            table.add_section()
            table.add_row(where)
        last = where
        table.add_row(
            row.kernel.replace("[", "\\["),
            f"{row.instructions:,.0f}",
            f"{row.loads:.1f} x {row.width:.0f} B" if row.loads else "",
            f"{row.in_flight:.1f}" if row.loads else "",
            f"{row.barriers:.0f}" if row.barriers else "",
            f"{row.registers:.0f}" + (f", {row.spilled:.0f} B spilled" if row.spilled else ""),
            f"{row.per_product:.1f}" if row.per_product else "",
            f"{row.issue:.1f}",
            f"{row.memory:.1f}",
            f"{row.issue / row.memory:.1f}" if row.memory else "",
        )
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Counts and prints; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], prog="tests/machine_code.py"
    )
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("--cases", default="*", metavar="GLOB", help=f"of {names}")
    parser.add_argument(
        "--objects", type=Path, default=OBJECTS, metavar="DIR", help="where nvcc's are"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"take the figures down in {TABLE.relative_to(ROOT)}"
    )
    chosen = parser.parse_args(argv)
    try:
        rows = list(counted(chosen.cases, chosen.objects))
    except (FileNotFoundError, LookupError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    if not rows:
        parser.error(f"no case matches {chosen.cases!r}; there are {names}")
    show(rows)
    if chosen.write:
        write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
