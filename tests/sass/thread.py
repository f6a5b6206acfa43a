"""One thread of a kernel, executed instruction by instruction, and what was counted on the way.

What the lanes of a warp do together is not executed: a shuffle gives a thread its own value, a vote
its own, HMMA nothing. Shared memory holds what this thread put there, what it was given, and else
zeros. So the numbers are those of the kernel only where no other thread has a part in them; which
way the thread goes, and with that the count, depends on its parameters and its place, and on values
in memory as far as the kernel asks for them.
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from sass import floats, integers, operands
from sass.listing import Instruction

PARAMETERS = 0x210  # where they begin in constant bank 0, compute capability 9.0
# There, too, is where a cooperative grid's barrier lies, high word first. All arrive there at once.
GRID_BARRIER, BARRIER = 0x44, 1 << 32 | 1 << 12
MASK = 0xFFFFFFFF

Read = Callable[[int, int], bytes]  # address, bytes

_NOTHING = (
    *("BSSY", "BSYNC", "BREAK", "NOP", "YIELD", "WARPSYNC", "NANOSLEEP"),
    *("BAR", "DEPBAR", "LDGDEPBAR", "FENCE", "MEMBAR", "ERRBAR", "CGAERRBAR", "CCTL"),
    *("HMMA", "LDSM", "STSM", "LDGSTS", "RED", "REDG"),
)


class Thread:
    """``memory`` answers loads from global memory; ``written`` has what was stored there, by
    address.

    Attributes:
        count: instructions issued, those whose guard held them back among them.
        loads, stores: of global memory, by their width in bytes; asynchronous copies are loads.
        waits: how often an instruction needed a value, or the group of copies, still on its way.
        barriers: of the block.
        shared: the block's shared memory, by words.
    """

    def __init__(
        self,
        code: Sequence[Instruction],
        parameters: bytes,
        memory: Read,
        *,
        thread: int = 0,
        block: Sequence[int] = (0, 0, 0),
        threads: Sequence[int] = (256, 1, 1),
        blocks: Sequence[int] = (1, 1, 1),
        jumps: bytes = b"",
        shared: dict[int, int] | None = None,
    ) -> None:
        self.code, self.memory = code, memory
        self.place = {one.address: i for i, one in enumerate(code)}
        self.registers: dict[str, int] = defaultdict(int)  # R7, UR7; RZ is never written
        self.predicates: dict[str, bool] = defaultdict(bool, PT=True, UPT=True)
        bank = struct.pack("<6I", *threads, *blocks).ljust(GRID_BARRIER, b"\0")
        bank += struct.pack("<2I", BARRIER >> 32, BARRIER & MASK)
        bank = bank.ljust(PARAMETERS, b"\0") + parameters
        self.banks = {0: bank, 2: jumps}
        x, rest = thread % threads[0], thread // threads[0]
        special = zip("XYZ", (x, rest % threads[1], rest // threads[1]), block, strict=True)
        self.special = {"SR_LANEID": thread % 32}
        for axis, its_thread, its_block in special:
            self.special[f"SR_TID.{axis}"] = its_thread
            self.special[f"SR_CTAID.{axis}"] = its_block
        self.shared: dict[int, int] = {} if shared is None else shared
        self.local: dict[int, int] = {}
        self.written: dict[int, bytes] = {}
        self.turned = 0  # the grid barrier's highest bit, which turns when all have arrived
        self.count = self.waits = self.barriers = 0
        self.loads: Counter[int] = Counter()
        self.stores: Counter[int] = Counter()
        self._awaited: set[str] = set()  # registers that a load has yet to fill
        self._next = 0

    def run(self, most: int = 1_000_000, *, to_barrier: bool = False) -> None:
        """Until the thread ends, or to its first barrier.

        Raises:
            RuntimeError: it has issued ``most`` instructions and not ended.
            NotImplementedError: there is an instruction that is not known here.
        """
        while self._next is not None and not (to_barrier and self.barriers):
            if self.count == most:
                raise RuntimeError(f"a thread that does not end: {most} instructions")
            self.step(self.code[self._next])

    def step(self, one: Instruction) -> None:
        self.count += 1
        self._next += 1
        self._wait(one)
        if one.guard is not None and not operands.predicate(self, one.guard):
            return
        name = one.name
        known = _MEMORY.get(name) or _CONTROL.get(name)
        if known is None:
            plain = name[1:] if name[0] == "U" and name[1:] in integers.OPERATIONS else name
            known = integers.OPERATIONS.get(plain) or floats.OPERATIONS.get(name)
        if known is not None:
            known(self, one)
        elif name not in _NOTHING:
            raise NotImplementedError(f"{one}: tests/sass does not know this instruction")
        self._note(one)

    # Memory on its way

    def _wait(self, one: Instruction) -> None:
        """All loads are one queue: what needs a value waits for whatever is on its way."""
        if not self._awaited:
            return
        if one.name == "DEPBAR":
            needed = "copies" in self._awaited
        else:
            needed = not self._awaited.isdisjoint(one.reads)
        if needed:
            self.waits += 1
            self._awaited.clear()

    def _note(self, one: Instruction) -> None:
        if one.name in ("LDG", "LD"):
            self.loads[one.width] += 1
            self._awaited.update(operands.group(one.operands[0], one.width))
        elif one.name == "LDGSTS":
            self.loads[one.width] += 1
            self._awaited.add("copies")
        elif one.name in ("STG", "ST"):
            self.stores[one.width] += 1
        elif one.name == "BAR":
            self.barriers += 1

    def go(self, address: int) -> None:
        self._next = self.place[address]

    def end(self) -> None:
        self._next = None

    @property
    def address(self) -> int:
        """Of the next instruction."""
        return self.code[self._next].address


def _load(thread: Thread, one: Instruction) -> None:
    address = operands.address(thread, one.operands[1])
    if address == BARRIER + 4:
        thread.turned ^= 1 << 31
        data = thread.turned.to_bytes(4, "little")
    else:
        data = thread.memory(address, one.width)
    if len(data) < 4:
        signed = one.modifiers[-1] in ("S8", "S16") or "S8" in one.modifiers
        value = int.from_bytes(data, "little", signed=signed)
        data = (value & MASK).to_bytes(4, "little")
    words = struct.unpack(f"<{len(data) // 4}I", data)
    for register, word in zip(operands.group(one.operands[0], one.width), words, strict=True):
        operands.put(thread, register, word)


def _store(thread: Thread, one: Instruction) -> None:
    registers = operands.group(one.operands[1], one.width)
    data = b"".join(thread.registers[r].to_bytes(4, "little") for r in registers)
    thread.written[operands.address(thread, one.operands[0])] = data[: one.width]


def _of(space: str) -> Callable:
    """Shared or local memory, by words."""

    def load(thread: Thread, one: Instruction) -> None:
        at = operands.address(thread, one.operands[1])
        for i, register in enumerate(operands.group(one.operands[0], one.width)):
            operands.put(thread, register, getattr(thread, space).get(at + 4 * i, 0))

    def store(thread: Thread, one: Instruction) -> None:
        at = operands.address(thread, one.operands[0])
        for i, register in enumerate(operands.group(one.operands[1], one.width)):
            getattr(thread, space)[at + 4 * i] = thread.registers[register]

    return load, store


def _constant(thread: Thread, one: Instruction) -> None:
    words = max(1, one.width // 4)
    value = operands.integer(thread, one.operands[1], words)
    if one.width < 4:
        bits = 8 * one.width
        value &= (1 << bits) - 1
        if one.modifiers[-1].startswith("S") and value >> (bits - 1):
            value -= 1 << bits
    operands.put(thread, one.operands[0], value, words)


def _special(thread: Thread, one: Instruction) -> None:
    wide = "32" not in one.modifiers and one.name == "CS2R"
    operands.put(thread, one.operands[0], thread.special.get(one.operands[1], 0), 2 if wide else 1)


def _branch(thread: Thread, one: Instruction) -> None:
    *condition, target = one.operands
    if "DIV" in one.modifiers:  # taken by warps that have diverged
        return
    if all(operands.predicate(thread, p) for p in condition):
        thread.go(int(target, 16))


def _branch_by_table(thread: Thread, one: Instruction) -> None:
    register, offset = one.operands[0].split()
    distance = operands.signed(operands.integer(thread, register))
    thread.go(distance + int(offset, 16) + thread.address)


def _call(thread: Thread, one: Instruction) -> None:
    thread.go(int(one.operands[-1], 16))


def _return(thread: Thread, one: Instruction) -> None:
    thread.go(operands.integer(thread, one.operands[0].split()[0]))


def _vote(thread: Thread, one: Instruction) -> None:
    """VOTE.ANY R0, PT, P0, as if all lanes were this one."""
    *targets, asked = one.operands
    answer = operands.predicate(thread, asked)
    for target in targets:
        if "P" in target:
            operands.set_predicate(thread, target, answer)
        else:
            operands.put(thread, target, MASK if answer else 0)


def _shuffle(thread: Thread, one: Instruction) -> None:
    inside, target, own, *_ = one.operands
    operands.set_predicate(thread, inside, True)
    operands.put(thread, target, operands.integer(thread, own))


def _atomic(thread: Thread, one: Instruction) -> None:
    """Zero was there, or where it is to be compared and swapped, what is expected."""
    targets = [o for o in one.operands if "[" not in o]
    if targets[0].lstrip("U").startswith("P"):
        operands.set_predicate(thread, targets[0], True)
        targets = targets[1:]
    expected = targets[1] if "CAS" in one.modifiers else "RZ"
    words = 2 if "64" in one.modifiers else 1
    operands.put(thread, targets[0], operands.integer(thread, expected, words), words)


_LOAD_SHARED, _STORE_SHARED = _of("shared")
_LOAD_LOCAL, _STORE_LOCAL = _of("local")
_MEMORY = {
    "LDG": _load,
    "LD": _load,
    "STG": _store,
    "ST": _store,
    "LDS": _LOAD_SHARED,
    "STS": _STORE_SHARED,
    "LDL": _LOAD_LOCAL,
    "STL": _STORE_LOCAL,
    "LDC": _constant,
    "ULDC": _constant,
    "ATOM": _atomic,
    "ATOMG": _atomic,
    "ATOMS": _atomic,
}
_CONTROL = {
    "EXIT": lambda thread, one: thread.end(),
    "BRA": _branch,
    "BRX": _branch_by_table,
    "CALL": _call,
    "RET": _return,
    "S2R": _special,
    "S2UR": _special,
    "CS2R": _special,
    "VOTE": _vote,
    "VOTEU": _vote,
    "SHFL": _shuffle,
}
