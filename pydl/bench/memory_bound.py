"""How near a layer comes to a copy: the roof of what is bound by memory, from the rows' own
times."""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydl.bench.cases import CASES
from pydl.bench.harness import DTYPES
from pydl.bench.reading import Line

# Bound by arithmetic, or by what the data are: the boxes decide what is read.
_OTHERWISE = ("conv", "conv_bias_act", "roi", "nms")
_CASES = {case.name: case for case in CASES if case.family not in _OTHERWISE}


@dataclass(frozen=True)
class Share:
    """One forward beside one copy of its input, timed in the same turns."""

    line: Line
    moved: int  # bytes: each operand read once, the result written once
    copied: float  # bytes a second of the copy, which reads and writes each byte of the input
    ours: float  # bytes a second, over the copy's
    theirs: float


def shares(lines: Iterable[Line]) -> Iterator[Share]:
    """Of the forwards of known cases, as far as they are bound by memory and were timed beside a
    copy."""
    for line in lines:
        row = line.row
        if row.get("kind") != "forward" or row["case"] not in _CASES or row["dtype"] not in DTYPES:
            continue
        sizes = tuple(map(int, row["shape"].split("x")))
        names = f"copy_{row['ratio_of']}", "copies", "copies_theirs"
        copy, copies, theirs = (row.get(name) for name in names)
        if sizes[1:] != _CASES[row["case"]].input or not (copy and copies and theirs):
            continue
        moved, of_input = _bytes(row["case"], sizes[0], row["dtype"])
        part = moved / (2 * of_input)
        copied = 2 * of_input / (1e-6 * float(copy))
        yield Share(line, moved, copied, part / float(copies), part / float(theirs))


@functools.cache
def _bytes(case: str, batch: int, dtype: str) -> tuple[int, int]:
    """Of operands and result, and of the input alone."""
    call = _CASES[case].call(batch)
    operands = call.empty(device="meta", dtype=DTYPES[dtype])
    moved = [*operands, call.theirs(operands)]
    return sum(one.nbytes for one in moved), operands[0].nbytes
