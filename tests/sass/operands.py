"""How the operands of an instruction are written, and what they are to a thread.

R7, UR7, -R7, ~R7, |R7|, R6.64; 0x1f, -0x8; 0.5, +INF; c[0x0][0x210]; P0, !P0, UP0; [R2.64+0x10]
"""

import functools
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sass.thread import Thread

MASK = 0xFFFFFFFF
_CONSTANT = re.compile(r"c\[(0x[0-9a-f]+)\]\[(.*)\]")
_SPECIAL = {"INF": 0x7F800000, "QNAN": 0x7FFFFFFF}


def signed(value: int, bits: int = 32) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def bits_of(value: float) -> int:
    """Of a float32; what is too large is infinite."""
    try:
        return struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return _SPECIAL["INF"] | (0x80000000 if value < 0 else 0)


def float_of(bits: int) -> float:
    return struct.unpack("<f", struct.pack("<I", bits & MASK))[0]


@functools.cache
def plain(operand: str) -> tuple[str, str, bool, tuple[str, ...]]:
    """An operand without sign and suffixes: (sign, what is left, magnitude?, suffixes)."""
    operand = operand.removesuffix(".reuse")
    sign = operand[0] if operand[0] in "-~!+" else ""
    rest = operand[len(sign) :]
    magnitude = rest.startswith("|")
    suffixes: list[str] = []
    if magnitude:
        inner, _, behind = rest[1:].partition("|")
        rest, suffixes = inner, behind.split(".")[1:]
    if re.match(r"U?R", rest):
        rest, *more = rest.split(".")
        suffixes += more
    return sign, rest, magnitude, tuple(suffixes)


@functools.cache
def _neighbours(register: str, count: int) -> tuple[str, ...]:
    kind, number = re.fullmatch(r"(U?R)(\d+|Z)", register).groups()
    if number == "Z":
        return (register,) * count
    return tuple(f"{kind}{int(number) + i}" for i in range(count))


@functools.cache
def group(operand: str, width: int) -> tuple[str, ...]:
    """The registers that hold this many bytes, from the one that is named."""
    return _neighbours(plain(operand)[1], max(1, width // 4))


def raw(thread: "Thread", operand: str, words: int = 1) -> int:
    """The bits, of this many neighbouring registers, before any sign."""
    if operand.endswith("RZ"):
        return 0
    if operand[0] in "RU":
        names = _neighbours(operand, words)
        return sum(thread.registers[name] << 32 * i for i, name in enumerate(names))
    if operand[0] == "c":
        bank, inside = _CONSTANT.fullmatch(operand).groups()
        at = sum(raw(thread, part) if "R" in part else int(part, 16) for part in inside.split("+"))
        data = thread.banks[int(bank, 16)]
        return int.from_bytes(data[at & MASK : (at & MASK) + 4 * words], "little")
    if operand.startswith("0x"):
        return int(operand, 16)
    if operand in _SPECIAL:
        return _SPECIAL[operand]
    return bits_of(float(operand))


def integer(thread: "Thread", operand: str, words: int = 1) -> int:
    """Without sign: of two's complement in as many words."""
    sign, rest, _, _ = plain(operand)
    value = raw(thread, rest, words)
    if sign == "-":
        value = -value
    elif sign in ("~", "!"):
        value = ~value
    return value & ((1 << 32 * words) - 1)


def addend(thread: "Thread", operand: str) -> int:
    """The same of one word, but minus zero is 2^32, as the carry wants it."""
    sign, rest, _, _ = plain(operand)
    if sign == "-" and not rest.startswith("0x"):
        return (1 << 32) - raw(thread, rest)
    return integer(thread, operand)


def number(thread: "Thread", operand: str) -> float:
    """As a float32; with the suffix H0_H0 or H1_H1, a half of it as a float16."""
    sign, rest, magnitude, suffixes = plain(operand)
    bits = raw(thread, rest)
    if "H0_H0" in suffixes or "H1_H1" in suffixes:
        half = bits >> 16 if "H1_H1" in suffixes else bits & 0xFFFF
        value = struct.unpack("<e", struct.pack("<H", half))[0]
    else:
        value = float_of(bits)
    value = abs(value) if magnitude else value
    return -value if sign == "-" else value


def double(thread: "Thread", operand: str) -> float:
    sign, rest, magnitude, _ = plain(operand)
    if rest[0] in "RUc":
        value = struct.unpack("<d", struct.pack("<Q", raw(thread, rest, 2)))[0]
    else:
        value = float(rest)
    value = abs(value) if magnitude else value
    return -value if sign == "-" else value


def predicate(thread: "Thread", operand: str) -> bool:
    return thread.predicates[operand.lstrip("!")] != operand.startswith("!")


def is_predicate(operand: str) -> bool:
    return operand.lstrip("!U").startswith("P")


def put(thread: "Thread", operand: str, value: int, words: int = 1) -> None:
    if operand.endswith("RZ"):
        return
    for i, name in enumerate(_neighbours(operand.split(".")[0], words)):
        thread.registers[name] = value >> 32 * i & MASK


def put_number(thread: "Thread", operand: str, value: float) -> None:
    put(thread, operand, bits_of(value))


def put_double(thread: "Thread", operand: str, value: float) -> None:
    put(thread, operand, struct.unpack("<Q", struct.pack("<d", value))[0], 2)


def set_predicate(thread: "Thread", operand: str, value: bool) -> None:
    if operand not in ("PT", "UPT"):
        thread.predicates[operand] = bool(value)


def address(thread: "Thread", operand: str) -> int:
    """Of desc[UR4][R2.64+0x10], [R2+UR4+0x8] or [0x40]."""
    inside = operand[operand.rindex("[") + 1 : operand.rindex("]")]
    total = 0
    for part in re.sub(r"\+-", "+ -", inside).split("+"):
        part = part.strip()
        if "R" in part:
            name, _, suffix = part.partition(".")
            scale = int(suffix[1:]) if suffix.startswith("X") else 1
            total += raw(thread, name, 2 if suffix == "64" else 1) * scale
        elif part:
            total += int(part, 16)
    return total & (1 << 64) - 1
