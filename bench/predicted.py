"""What README and docs/performance.md say of bench/results/model/sm_90.csv (model.py): predictions,
of which nothing was measured."""

import csv
from pathlib import Path
from textwrap import dedent

from figures import shown
from folders import MODEL

from pydl.bench.results import geometric_mean

ROOT = Path(__file__).resolve().parents[1]
FILE, RIVALS = MODEL / "sm_90.csv", MODEL / "torch_sm_90.csv"


def _rows() -> list[dict[str, str]]:
    with FILE.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _times(row: dict[str, str]) -> float:
    """By how much PyTorch's kernels need longer."""
    return float(row["torch_predicted_us"]) / float(row["predicted_us"])


def sentence() -> str:
    """Of all passes together, for README."""
    rows = _rows()
    near = sum(float(row["ratio"]) <= 1.3 for row in rows)
    with RIVALS.open(encoding="utf-8", newline="") as lines:
        version = next(csv.DictReader(lines))["torch"]
    times = [_times(row) for row in rows if row["torch_predicted_us"]]
    return (
        f"*Predicted* from machine code ([{FILE.name}]({FILE.relative_to(ROOT)})): the kernels in "
        f"CUDA C++ permit an H100 {near} of {len(rows)} passes in at most 1.3 times what a copy "
        f"of their bytes takes. PyTorch {version}'s own kernels, counted alike "
        f"([{RIVALS.name}]({RIVALS.relative_to(ROOT)})), serve {len(times)} of these passes and "
        f"permit them in {shown(min(times))} to {shown(max(times))} times the time of ours, in "
        f"geometric mean {shown(geometric_mean(times))} times, *predicted* too; the others are "
        "cuDNN's, or of locally connected layers and boxes."
    )


def about() -> str:
    """What stands over the table of docs/performance.md."""
    links = [f"[{file.name}](../{file.relative_to(ROOT)})" for file in (FILE, RIVALS)]
    return dedent(f"""\
        ## Predicted of an H100

        Microseconds that an H100 would need at least, by the instructions that the compiled kernels
        in CUDA C++ execute and the bytes that they move, without launches and without a wait for
        memory. **Nothing of this was measured.** *PyTorch's*: the kernels of its CUDA wheel,
        counted alike (`python bench/torch_kernels.py`), in brackets how many times as long they
        need; empty where PyTorch calls cuDNN, and for locally connected layers and boxes. On both
        sides each thread is counted as if it had an issue slot of its own: a warp whose threads
        part, or idle, takes longer, above all in PyTorch's adaptive pools (`longest` in the second
        file). And on both each kernel reads and writes memory: where a cache keeps what the one
        before wrote, a pass of several kernels, as most of PyTorch's are, takes less. A ratio of
        two such figures bounds nothing itself.
        From {" and ".join(links)}.""")


def not_fused() -> str:
    """Which kernels stay apart, and why."""
    lrn, pool = (
        next(r for r in _rows() if (r["case"], r["kind"], r["layout"]) == (case, "forward", "nchw"))
        for case in ("alexnet.lrn1", "alexnet.pool1")
    )
    apart = float(lrn["predicted_us"]) + float(pool["predicted_us"])
    # Windows of 3 x 3 with stride 2 read each value 9 / 4 times.
    joined = 9 / 4 * float(lrn["issue_us"]) + float(pool["issue_us"])
    return dedent(f"""\
        Batch normalisation, a residual and an activation are one pass with one bit an element kept;
        no further kernels are joined. Response normalisation with the max pooling after it,
        AlexNet's pair, would read the map once; but each window would normalise its nine values
        anew, so that instructions, not bytes, would bound it: {joined:.1f} us *predicted* of
        `alexnet.lrn1` and `alexnet.pool1` for the {apart:.1f} of the two apart, for one network.
        The statistics of a batch norm are not summed up by the convolution before it: the contract
        of a convolution returns its map alone.""")


def lines() -> tuple[list[str], list[list[str]]]:
    """That table: its head and its rows."""
    found: dict[tuple[str, ...], list[str]] = {}
    for row in _rows():
        key = row["case"], row["shape"], row["layout"].replace("_", " "), row["dtype"]
        rival = row["torch_predicted_us"]
        rival = f"{float(rival):.3g} ({shown(_times(row))}x)" if rival else ""
        found.setdefault(key, []).extend([f"{float(row['predicted_us']):.3g}", rival])
    head = ["case", "input", "layout", "dtype", "forward", "PyTorch's", "backward", "PyTorch's"]
    return head, [[*key, *cells, "", ""][: len(head)] for key, cells in found.items()]
