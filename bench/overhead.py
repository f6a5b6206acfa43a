"""What a call costs before any arithmetic: ``python bench/overhead.py --out FILE``.

Layers of this package and of torch.nn with equal weights on inputs of a few hundred bytes, timed in
turns in one process, one thread: forward without gradients, and forward + backward. Under ``auto``
such inputs are PyTorch's own operators', so the extra time of ours is the way there; under ``cpu``
it is the way to a kernel. The table's figures are the minimum of many samples, in microseconds.
"""

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from pydl import measure, nn  # noqa: E402


@dataclass(frozen=True)
class Case:
    """A layer, its arguments and the shape of its input."""

    layer: str
    arguments: tuple
    shape: tuple[int, ...]
    training: bool = True
    cpu: bool = True  # whether a native kernel serves it by name

    def __str__(self) -> str:
        return f"{self.layer}{self.arguments or '()'}" + ("" if self.training else ".eval()")


MAP = (1, 4, 6, 6)
CASES = (
    Case("Conv2d", (4, 4, 3), MAP, cpu=False),
    Case("Conv2d", (4, 4, 3, 1, 1, 1, 4), MAP),
    Case("ConvTranspose2d", (4, 4, 3), MAP, cpu=False),
    Case("MaxPool2d", (2,), MAP),
    Case("AvgPool2d", (2,), MAP),
    Case("LPPool2d", (2, 2), MAP),
    Case("AdaptiveAvgPool2d", (2,), MAP),
    Case("AdaptiveMaxPool2d", (2,), MAP),
    Case("LocalResponseNorm", (3,), MAP),
    Case("BatchNorm2d", (4,), MAP),
    Case("BatchNorm2d", (4,), MAP, training=False),
    Case("Softmax", (1,), (4, 8)),
    Case("LogSoftmax", (1,), (4, 8)),
    Case("Dropout", (0.5,), MAP),
    Case("ReLU", (), MAP),
    Case("RNN", (4, 8), (3, 2, 4)),
    Case("LSTM", (4, 8), (3, 2, 4)),
    Case("GRU", (4, 8), (3, 2, 4)),
    Case("RNNCell", (4, 8), (2, 4)),
    Case("LSTMCell", (4, 8), (2, 4)),
    Case("GRUCell", (4, 8), (2, 4)),
)


def call(layer: torch.nn.Module, x: torch.Tensor, backward: bool) -> Callable[[], object]:
    if not backward:
        return torch.no_grad()(lambda: layer(x))
    leaves = [x.clone().requires_grad_(), *layer.parameters()]

    def both() -> object:
        y = layer(leaves[0])
        y = y[0] if isinstance(y, tuple) else y
        return torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)

    return both


def rows(pattern: str, seconds: float) -> list[dict[str, object]]:
    made = []
    for case in CASES:
        if pattern not in str(case):
            continue
        x = torch.randn(case.shape)
        layers = {"torch": getattr(torch.nn, case.layer)(*case.arguments)}
        for backend in ("auto", "cpu") if case.cpu else ("auto",):
            ours = getattr(nn, case.layer)(*case.arguments, backend=backend)
            ours.load_state_dict(layers["torch"].state_dict())
            layers[backend] = ours
        for passes, backward in (("forward", False), ("forward + backward", True)):
            calls = {
                name: call(layer.train(case.training), x, backward)
                for name, layer in layers.items()
            }
            times = measure.interleave(calls, seconds=seconds, rounds=(60, 4000))
            least = {name: time.minimum * 1e6 for name, time in times.items()}
            row = {"layer": str(case), "passes": passes}
            row |= {
                f"{name}_us": f"{least[name]:.2f}" if name in least else ""
                for name in ("torch", "auto", "cpu")
            }
            row["auto_above_us"] = f"{least['auto'] - least['torch']:.2f}"
            made.append(row)
            print(*row.values(), sep="  ", flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", default="", help="only layers whose name contains this")
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to measure a row")
    parser.add_argument("--out", type=Path, help="the CSV to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = rows(arguments.cases, arguments.seconds)
    worst = max(made, key=lambda row: float(row["auto_above_us"]))
    print(f"auto costs {worst['auto_above_us']} us more at most: {worst['layer']}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, made[0])
            writer.writeheader()
            writer.writerows(made)


if __name__ == "__main__":
    main()
