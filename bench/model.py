"""What the machine code of the CUDA kernels permits an H100, *predicted* without a GPU:
``python bench/model.py``.

The figures are those that ``pydl roofline --write`` took down of what ``make nvcc`` compiled
(tests/machine_code.py counts). A row of ``bench/results/model/sm_90.csv`` is a pass of a row of the
benchmark; times are in microseconds, and none was measured:

    instructions    that threads execute, for each element of the largest tensor
    issue_us        in which all schedulers issue these, one a clock and warp
    memory_us       in which each kernel's tensors are moved once
    predicted_us    the larger of the two, kernel by kernel: the pass takes no less
    copy_us         in which the bytes of all the pass's tensors are moved once, of those too that
                    one of its kernels leaves for another
    ratio           of predicted_us to copy_us
    torch_...       of the kernels by which PyTorch serves the pass (torch_kernels.py), summed in
                    the same way; empty where they are another library's

What these bounds leave out makes a pass slower: launches, waits for what is loaded, the tensor
cores' own rate, lanes of a warp that part, and bytes that are moved twice because no cache kept
them.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import machine_code  # noqa: E402
import torch  # noqa: E402
import torch_kernels  # noqa: E402
from folders import MODEL  # noqa: E402
from sass.launches import bytes_of  # noqa: E402

OUT = MODEL / "sm_90.csv"


@dataclass(frozen=True)
class Row:
    """A pass, of ``kernels`` launches."""

    case: str
    operator: str
    shape: str
    layout: str
    dtype: str
    kind: str
    kernels: int
    instructions: float
    issue_us: float
    memory_us: float
    predicted_us: float
    copy_us: float
    ratio: float
    torch_instructions: float | None = None
    torch_memory_us: float | None = None
    torch_predicted_us: float | None = None


def row(
    counts: Sequence[machine_code.Count],
    tensors: Sequence[torch.Tensor],
    theirs: Sequence[torch_kernels.Count],
) -> Row:
    """Of the kernels of a pass, the tensors that they are given, and PyTorch's kernels."""
    one = counts[0]
    case = machine_code.CALLS[one.case]
    issue = sum(count.issue for count in counts)
    predicted = sum(max(count.issue, count.memory) for count in counts)
    copy = bytes_of(tensors) / machine_code.MEMORY * 1e6
    each = 1e-6 * machine_code.ISSUE / max(t.numel() for t in tensors)
    rivals = {
        "torch_instructions": each * sum(count.issue for count in theirs),
        "torch_memory_us": sum(count.memory for count in theirs),
        "torch_predicted_us": sum(max(count.issue, count.memory) for count in theirs),
    }
    return Row(
        one.case,
        case.operator,
        "x".join(map(str, (case.batch, *case.input))),
        one.layout,
        one.dtype,
        one.kind,
        len(counts),
        instructions=each * issue,
        issue_us=issue,
        memory_us=sum(count.memory for count in counts),
        predicted_us=predicted,
        copy_us=copy,
        ratio=predicted / copy,
        **(rivals if theirs else {}),
    )


def rows() -> Iterator[Row]:
    """Every pass of every case that is counted."""
    table = list(machine_code.read().values())
    rivals = torch_kernels.read()
    for case in machine_code.CASES:
        for dtype, layout in case.settings:
            for kind in case.passes:
                key = case.name, kind, dtype, layout
                counts = [one for one in table if one.key[:4] == key]
                launches = machine_code.launches(case, dtype, layout, kind)
                tensors = {t.data_ptr(): t for launch in launches for t in launch.tensors}
                theirs = [one for one in rivals if one.key == key]
                yield row(counts, list(tensors.values()), theirs)


def main() -> int:
    """Writes the table; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.parse_args()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    found = list(rows())
    with OUT.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(one.name for one in fields(Row))
        for one in found:
            values = asdict(one).values()
            writer.writerow(f"{v:.4g}" if isinstance(v, float) else v for v in values)
    print(f"{OUT.relative_to(ROOT)}: {len(found)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
