"""The kernels of an object file, as cuobjdump prints them."""

import functools
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# On Volta and later each is a whole quadword and its guard a predicate: @!P0 BRA 0x1f0 ;
_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(\S.*?)\s*;", re.M)
_REGISTER = re.compile(r"\bU?R\d+\b")
_GUARD = re.compile(r"@(!?U?P\w+)\s+")
_USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_TABLE = re.compile(r"^\.nv\.constant2\.(\S+)\n((?:\s*0x[0-9a-f]{8})+)", re.M)


@dataclass(frozen=True)
class Instruction:
    """``guard`` is the predicate under which it takes effect; ``name`` is without its modifiers."""

    address: int
    guard: str | None
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]

    @functools.cached_property
    def reads(self) -> frozenset[str]:
        """The registers whose values it needs: those of its operands but the first, unless it
        stores, and of neighbours that are read together the first."""
        stores = self.name in ("STG", "ST", "STS", "STL", "RED", "REDG")
        operands = [o for i, o in enumerate(self.operands) if i > 0 or stores or "[" in o]
        return frozenset(_REGISTER.findall(",".join(operands)))

    @functools.cached_property
    def width(self) -> int:
        """The bytes that a memory instruction moves."""
        widths = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
        return next((widths[one] for one in self.modifiers if one in widths), 4)


@dataclass(frozen=True)
class Kernel:
    """``name`` as in its source: forward<float, 8>; ``spilled`` in bytes; ``jumps`` is constant
    bank 2, where a switch looks up where to go."""

    name: str
    registers: int
    spilled: int
    jumps: bytes
    instructions: tuple[Instruction, ...]

    @property
    def loops(self) -> list[tuple[Instruction, ...]]:
        """Their bodies: what lies between a branch backwards and where it goes."""
        bodies = []
        for instruction in self.instructions:
            if instruction.name != "BRA" or not instruction.operands[-1].startswith("0x"):
                continue
            start = int(instruction.operands[-1], 16)
            if start < instruction.address:  # a branch to itself is what ends a kernel
                within = range(start, instruction.address + 1)
                bodies.append(tuple(one for one in self.instructions if one.address in within))
        return bodies

    @property
    def per_product(self) -> float | None:
        """Instructions for each HMMA in the densest loop, None without tensor cores."""
        products = [(sum(one.name == "HMMA" for one in body), len(body)) for body in self.loops]
        return min((size / count for count, size in products if count), default=None)


def instruction(address: int, text: str) -> Instruction:
    guard = _GUARD.match(text)
    words = text[guard.end() if guard else 0 :].split(None, 1)
    name, *modifiers = words[0].split(".")
    rest = words[1] if len(words) > 1 else ""
    operands = tuple(one.strip() for one in rest.split(",")) if rest else ()
    return Instruction(address, guard and guard[1], name, tuple(modifiers), operands)


def instructions(text: str) -> tuple[Instruction, ...]:
    """Of a listing with addresses, as cuobjdump and nvdisasm print it."""
    return tuple(instruction(int(at, 16), one) for at, one in _LINE.findall(text))


@functools.cache
def tool() -> str | None:
    """cuobjdump: the copy that comes with Triton, or the toolkit's."""
    for folder in map(Path, sys.path):
        if (copy := folder / "triton/backends/nvidia/bin/cuobjdump").exists():
            return str(copy)
    return shutil.which("cuobjdump")


def short(mangled: list[str]) -> list[str]:
    """Names without namespaces, result and parameters: forward<float, 8>."""
    filtered = subprocess.run(
        ["c++filt"], input="\n".join(mangled), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [without_parameters(name) for name in filtered]


def without_parameters(name: str) -> str:
    name = re.sub(r"\(anonymous namespace\)::|pydl::(cuda::)?", "", name).removeprefix("void ")
    depth = 0
    for at, letter in enumerate(name):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "(" and depth == 0:
            return name[:at]
    return name


def _dump(file: Path, architecture: str, *options: str) -> str:
    command = [tool(), *options, "-arch", architecture, str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read(file: Path, architecture: str, wanted: set[str]) -> dict[str, Kernel]:
    """The kernels of these names in an object file, by name.

    Raises:
        LookupError: the file has no kernel of a name.
    """
    usage = _usage(file, architecture)
    names = dict(zip(short(list(usage)), usage, strict=True))
    if missing := wanted - names.keys():
        raise LookupError(f"{file} has no {', '.join(sorted(missing))}; built from other sources?")
    return named(file, architecture, {names[name]: name for name in wanted})


def named(file: Path, architecture: str, chosen: Mapping[str, str]) -> dict[str, Kernel]:
    """The kernels of these mangled names, by the names that they are to have."""
    usage = _usage(file, architecture)
    text = _dump(file, architecture, "-sass", "-fun", ",".join(chosen))
    jumps = {}
    if "c[0x2]" in text:
        for mangled, words in _TABLE.findall(_dump(file, architecture, "-elf")):
            jumps[mangled] = struct.pack(f"<{len(words.split())}I", *_numbers(words))
    out = {}
    for part in text.split("Function : ")[1:]:
        mangled = part.split(maxsplit=1)[0]
        registers, stack, _, local = map(int, usage[mangled])
        its_jumps = jumps.get(mangled, b"")
        name = chosen[mangled]
        out[name] = Kernel(name, registers, stack + local, its_jumps, instructions(part))
    return out


@functools.cache
def _usage(file: Path, architecture: str) -> dict[str, tuple[str, ...]]:
    """Registers, stack, shared and local memory, by mangled name."""
    return {row[0]: row[1:] for row in _USAGE.findall(_dump(file, architecture, "-res-usage"))}


def _numbers(words: str) -> list[int]:
    return [int(word, 16) for word in words.split()]
