"""What a step of training takes of memory: ``python bench/memory.py resnet1202 --batch 128``.

A network of ``pydl.models`` in a process of its own, one step on random images in float32: forward,
loss, the gradients of all parameters, SGD with momentum, whose state exists before, as it does in
all steps but the first. The figures are resident memory of the whole process, Python and PyTorch
included, in MiB: once the network is built, and the most until the step has ended, as the system
counts it. They are written into ``bench/results/memory.csv``, in place of the row of the same
network, batch and pieces.
"""

import argparse
import csv
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from pydl import functional, measure, models  # noqa: E402

OUT = ROOT / "bench" / "results" / "memory.csv"
KEY = ("network", "batch", "pieces")


def peak() -> int:
    """The most resident memory that this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts in KiB


def step(name: str, batch: int, pieces: int | None) -> dict[str, object]:
    """One step; the row of the table.

    Raises:
        ValueError: there is no such network, or it cannot be cut into pieces.
    """
    row = models.find(name)
    torch.manual_seed(0)
    network = row.build()
    if pieces is not None:
        if not hasattr(network, "checkpoint"):
            raise ValueError(f"{name} keeps what its layers need, and has no pieces")
        network.checkpoint = pieces  # type: ignore[assignment]
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # which makes the momentum
    optimizer.zero_grad()
    images = torch.randn(batch, *row.input)
    built = peak()
    scores = network(images)
    functional.cross_entropy(scores, torch.randint(scores.shape[1], (batch,))).backward()
    optimizer.step()
    return {
        "network": name,
        "batch": batch,
        "pieces": getattr(network, "checkpoint", 0),
        "input": "x".join(map(str, row.input)),
        "built_mib": built,
        "peak_mib": peak(),
        "threads": torch.get_num_threads(),
        "device": measure.device_name(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python bench/memory.py {name} --batch {batch}"
        + (f" --pieces {pieces}" if pieces is not None else ""),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="a name that `pydl summary` lists")
    parser.add_argument("--batch", type=int, default=128, help="images (default: %(default)s)")
    parser.add_argument(
        "--pieces",
        type=int,
        help="into how many pieces the blocks are cut, of which each keeps only its input (0: the "
        "network keeps everything; default: the network's own)",
    )
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="(default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = step(arguments.network, arguments.batch, arguments.pieces)
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    rows: list[dict[str, object]] = []
    if arguments.out.is_file():
        with arguments.out.open(newline="") as file:
            rows = [
                dict(row)
                for row in csv.DictReader(file)
                if any(row[name] != str(found[name]) for name in KEY)
            ]
    with arguments.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, found, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, found])


if __name__ == "__main__":
    main()
