"""What the Triton kernels do on the benchmark's shapes, counted as tests/machine_code.py counts the
CUDA ones: without a GPU, from the machine code that Triton makes for an H100.

    python tests/triton_code.py [--cases GLOB] [--write]    (`pydl roofline --backend triton`)

What a call would launch is compiled for sm_90 instead, with the arguments as the kernel would get
them, and a few of its threads are executed. tests/tools/triton_code.csv has the figures. They are
those of the oldest Triton that pyproject.toml allows, which `make cubins` installs.
"""

import argparse
import ctypes
import fnmatch
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import triton

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/tools")]

from machine_code import (  # noqa: E402
    ARCHITECTURE,
    KINDS,
    Case,
    Count,
    figures,
    launches,
    named,
    read,
    show,
    write,
)
from machine_code import CASES as COMPARED  # noqa: E402
from sass import listing  # noqa: E402
from sass.launches import Launch  # noqa: E402
from sass.thread import Thread  # noqa: E402

from pydl import backends, functional  # noqa: E402

OLDEST = ROOT / ".venv/triton-3.6"
TABLE = ROOT / "tests/tools/triton_code.csv"

_DTYPES = ("float32", "bfloat16")
_MAPS = tuple((dtype, layout) for layout in ("nchw", "channels_last") for dtype in _DTYPES)
_ROWS = tuple((dtype, "nchw") for dtype in _DTYPES)
# Products, of convolutions and the like, are not a matter of bytes; boxes have no Triton kernels.
_OTHERS = ("*conv*", "deepface.*", "*rcnn.*", "LSTM-*")
CASES = (
    *(
        replace(one, settings=_MAPS)
        for one in COMPARED
        if not any(fnmatch.fnmatchcase(one.name, other) for other in _OTHERS)
    ),
    Case("resnet50.layer4.0.bn1+relu", _MAPS),
    Case("alexnet.lrn1-within", _MAPS),
    Case("c3d.pool1", _MAPS),
    Case("classifier.softmax-10-8192", _ROWS),
    Case("classifier.softmax-1000", _ROWS),
    Case("voc.softmax", _MAPS),
    Case("voc.log_softmax", _MAPS),
    Case("classifier.loss-10-8192", _ROWS),
    Case("classifier.loss-1000", _ROWS),
    Case("voc.loss", _MAPS),
    Case("ade20k.loss", _MAPS),
    Case("classifier.dropout-4096", _ROWS),
)


# What the suite counts, of the case so much: all of it takes ten minutes.
CHECKED = (
    ("classifier.relu-4096", "*forward"),
    ("alexnet.pool1", "bfloat16 nchw *"),
    ("voc.loss", "bfloat16 channels_last forward"),
    ("resnet50.layer1.0.bn1+relu", "bfloat16 nchw forward"),
)

_FORMATS = {"i1": "?", "i8": "b", "i32": "i", "u32": "I", "i64": "q", "u64": "Q"}
_FORMATS |= {"fp32": "f", "fp64": "d"}


@dataclass(frozen=True)
class Compiled(Launch):
    """A launch with the machine code that Triton makes for it."""

    code: listing.Kernel


def packed(kind: object, value: object) -> Iterator[tuple[str, object]]:
    """Of an argument of this type in a signature, a format of struct for each parameter."""
    if isinstance(kind, tuple):
        for its_kind, its_value in zip(kind, value, strict=True):
            yield from packed(its_kind, its_value)
    elif isinstance(value, torch.Tensor):
        yield "Q", value.data_ptr()
    elif kind != "constexpr":
        yield _FORMATS[kind], value


def _compiled(kernel, count: int, arguments: tuple, named: dict) -> Compiled:
    from specialisation import specialisation

    one = specialisation(kernel, arguments, named)
    result = one.compiled(90)
    assert result.metadata.global_scratch_size == 0, "it would be a parameter"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(result.asm["cubin"])
        (code,) = listing.read(file, ARCHITECTURE, {kernel.__name__}).values()
    own = {name: value for name, value in named.items() if name in kernel.arg_names}
    bound = kernel.signature.bind(*arguments, **own)
    bound.apply_defaults()
    parts = [p for name, v in bound.arguments.items() for p in packed(one.signature[name], v)]
    # Each is aligned to its own size, as struct does it.
    parameters = struct.pack("".join(how for how, _ in parts), *(value for _, value in parts))
    return Compiled(
        kernel.fn.__module__.rpartition(".")[2],
        kernel.__name__,
        (count, 1, 1),
        (32 * result.metadata.num_warps, 1, 1),
        parameters,
        tuple(t for t in bound.arguments.values() if isinstance(t, torch.Tensor)),
        code,
    )


def recorded(run: Callable[[], object]) -> list[Launch]:
    """What ``run`` launches by the backend ``triton``. Results are as they were allocated."""
    from pydl.kernels import runtime

    found: list[Launch] = []
    row, own = backends.BACKENDS["triton"], runtime.launch
    devices = row.devices
    row.devices = ("cpu",)
    runtime.launch = lambda kernel, count, device, *arguments, **named: found.append(
        _compiled(kernel, count, arguments, named)
    )
    try:
        run()
    finally:
        row.devices, runtime.launch = devices, own
    return found


def count(case: Case, dtype: str, layout: str, kind: str) -> Iterator[Count]:
    """A row for each launch of a pass."""
    for name, launch in named(launches(case, dtype, layout, kind, "triton", recorded)):
        code, where = launch.code, (case.name, kind, dtype, layout, name)
        yield Count(*where, code.registers, code.spilled, **figures(code, launch, exchanged=True))


def counted(pattern: str = "*", settings: str = "*") -> Iterator[Count]:
    """The rows of every case whose name fits, in the settings "dtype layout kind" that fit."""
    for case in CASES:
        if fnmatch.fnmatchcase(case.name, pattern):
            for dtype, layout in case.settings:
                for kind in KINDS:
                    if fnmatch.fnmatchcase(f"{dtype} {layout} {kind}", settings):
                        yield from count(case, dtype, layout, kind)


def results(launch: Compiled) -> None:
    """Executes every thread of a launch, one after the other, in the memory of its tensors: the
    results are the kernel's where its threads exchange nothing."""
    ranges = [(t.data_ptr(), t.untyped_storage().nbytes()) for t in launch.tensors]

    def inside(address: int, width: int) -> int:
        assert any(at <= address and address + width <= at + size for at, size in ranges)
        return address

    for number in range(launch.threads):
        thread, block = launch.place(number)
        one = Thread(
            launch.code.instructions,
            launch.parameters,
            lambda address, width: ctypes.string_at(inside(address, width), width),
            thread=thread,
            block=block,
            threads=launch.block,
            blocks=launch.grid,
        )
        one.run()
        for address, data in one.written.items():
            ctypes.memmove(inside(address, len(data)), data, len(data))


def check() -> Iterator[str]:
    """What is wrong: a kernel that does more than the table allows, or whose machine code gives
    other numbers than PyTorch."""
    table = read(TABLE)
    for name, settings in CHECKED:
        for row in counted(name, settings):
            if row.key not in table:
                yield f"{' '.join(row.key)} is not in the table"
            else:
                yield from (f"{' '.join(row.key)}: {word}" for word in row.worse(table[row.key]))
    for run in (
        functional.relu,
        partial(functional.max_pool2d, kernel_size=3, stride=2, padding=1),
        partial(functional.avg_pool2d, kernel_size=2),
        partial(functional.adaptive_avg_pool2d, output_size=3),
        partial(functional.local_response_norm, size=3, alpha=0.5),
    ):
        if not torch.allclose(computed(run), run(X, backend="aten"), atol=1e-6):
            yield f"the machine code of {run} gives other numbers than PyTorch"


X = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).sin().reshape(2, 3, 5, 4)


def computed(run: Callable[..., torch.Tensor]) -> torch.Tensor:
    """What the machine code makes of X."""
    made: list[torch.Tensor] = []
    for launch in recorded(lambda: made.append(run(X, backend="triton"))):
        results(launch)
    return made[0]


def again(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """This file as a script, with the oldest Triton and without its interpreter.

    Raises:
        FileNotFoundError: that Triton is not installed.
    """
    if not OLDEST.exists():
        raise FileNotFoundError(f"no {OLDEST.relative_to(ROOT)}: `make cubins` installs it")
    environment = {n: v for n, v in os.environ.items() if n != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(OLDEST)
    return subprocess.run([sys.executable, __file__, *arguments], env=environment, text=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Counts and prints; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], prog="tests/triton_code.py"
    )
    names = ", ".join(case.name for case in CASES)
    parser.add_argument("--cases", default="*", metavar="GLOB", help=f"of {names}")
    parser.add_argument(
        "--settings", default="*", metavar="GLOB", help='such as "bfloat16 nchw forward"'
    )
    parser.add_argument(
        "--write", action="store_true", help=f"take the figures down in {TABLE.relative_to(ROOT)}"
    )
    parser.add_argument(
        "--check", action="store_true", help="some kernels only, against the figures and PyTorch"
    )
    chosen = parser.parse_args(argv)
    if not triton.__version__.startswith(OLDEST.name.removeprefix("triton-")):
        try:
            return again(sys.argv[1:] if argv is None else argv).returncode
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
    if chosen.check:
        faults = list(check())
        print("\n".join(faults), file=sys.stderr)
        return len(faults) > 0
    rows = list(counted(chosen.cases, chosen.settings))
    if not rows:
        parser.error(f"no case matches {chosen.cases!r}; there are {names}")
    show(rows)
    if chosen.write:
        write(rows, TABLE, CASES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
