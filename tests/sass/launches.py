"""What a call of the package would launch on a GPU: recorded by the emulator instead of run."""

import struct
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves

from pydl import emulation, native
from sass import listing


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Of each element once."""
    return sum(
        t.element_size() * prod(n for n, s in zip(t.shape, t.stride(), strict=True) if s)
        for t in tensors
    )


@dataclass(frozen=True)
class Launch:
    """``file`` is the .cu that launches; ``tensors``, of those that the extension got, are those
    that the kernel is given, and ``real`` those of them whose numbers count."""

    file: str
    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    parameters: bytes
    tensors: tuple[torch.Tensor, ...]
    real: tuple[torch.Tensor, ...] = field(default=(), kw_only=True)

    @property
    def threads(self) -> int:
        return prod(self.grid) * prod(self.block)

    @property
    def bytes(self) -> int:
        return bytes_of(self.tensors)

    def place(self, number: int) -> tuple[int, tuple[int, int, int]]:
        """The index in its block of one of the threads, and the block's."""
        block, thread = divmod(number, prod(self.block))
        x, y, _ = self.grid
        return thread, (block % x, block // x % y, block // (x * y))


class _Recorder(native.Library):
    """The emulated library, each call of which adds its launches to a list."""

    def __init__(self, emulated) -> None:
        super().__init__("cuda", emulated.cuda, on_gpu=False)
        self.emulated, self.launches = emulated, []

    def call(self, function: str, *arguments: object, on: torch.Tensor) -> None:
        self.emulated.emulator.record()
        try:
            super().call(function, *arguments, on=on)
        finally:
            recorded = self.emulated.emulator.recorded()
        tensors = [one for one in tree_leaves(arguments) if isinstance(one, torch.Tensor)]
        names = _kernels(self.emulated.__file__)
        for file, place, grid, block, _, parameters in recorded:
            given = tuple(t for t in tensors if struct.pack("<Q", t.data_ptr()) in parameters)
            launch = Launch(Path(file).stem, names[place], grid, block, parameters, given)
            self.launches.append(launch)


@cache
def _kernels(library: str) -> dict[int, str]:
    """Their names by their places in a library."""
    symbols = subprocess.run(["nm", library], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in symbols.splitlines()]
    rows = [row for row in rows if len(row) == 3 and row[1] in "tTW" and "pydl" in row[2]]
    names = listing.short([row[2] for row in rows])
    return {int(row[0], 16): name for row, name in zip(rows, names, strict=True)}


def recorded(run: Callable[[], object]) -> list[Launch]:
    """What ``run`` launches by the backend ``cuda``. Results are as they were allocated."""
    from pydl import _emulated

    emulation.emulate_cuda(_emulated)
    recorder = native._libraries["cuda"] = _Recorder(_emulated)
    try:
        run()
    finally:
        emulation.emulate_cuda(_emulated)
    return recorder.launches
