"""What a call costs before any arithmetic: ``python bench/overhead.py --out FILE``.

Layers of this package and PyTorch's own with equal weights on inputs of a few hundred bytes, timed
in turns in one process, one thread: forward without gradients, and forward + backward. Under
``auto`` such inputs are PyTorch's own operators', so the extra time of ours is the way there; under
``cpu`` it is the way to a kernel; under ``triton`` and ``cuda`` the way to a launch that does
nothing (no_gpu.py), all on the CPU. The table's figures are the minimum of many samples, in
microseconds.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import no_gpu  # noqa: E402
import torch  # noqa: E402

from pydl import measure, nn  # noqa: E402
from pydl.bench.results import write_table  # noqa: E402

BACKENDS = ("auto", "cpu", "triton", "cuda")
MAP, ROWS, STEPS = (1, 4, 6, 6), (4, 8), (3, 2, 4)


@dataclass(frozen=True)
class Case:
    """A layer, its arguments and the shape of its input."""

    layer: str
    arguments: tuple
    shape: tuple[int, ...]
    training: bool = True
    rest: Callable[[], tuple] = tuple  # what else is given to forward
    backends: tuple[str, ...] = BACKENDS  # that serve it

    def __str__(self) -> str:
        return f"{self.layer}{self.arguments or '()'}" + ("" if self.training else ".eval()")

    def made(self, backend: str | None = None) -> torch.nn.Module:
        """By PyTorch without a backend: its layer, or what it can do for one of ours alone."""
        stock = getattr(torch.nn, self.layer, None)
        if backend is None and stock is not None:
            return stock(*self.arguments)
        named = None if backend == "auto" else backend or "aten"  # what nobody says is `auto`
        return getattr(nn, self.layer)(*self.arguments, backend=named)


def _indices() -> tuple[torch.Tensor]:
    return (torch.arange(36).view(MAP[2:]).repeat(1, 4, 1, 1),)


def _targets() -> tuple[torch.Tensor]:
    return (torch.arange(4),)


_NOT_CPU = ("auto", "triton")
_NOT_CUDA = ("auto", "cpu", "triton")
CASES = (
    Case("Conv2d", (4, 4, 3), MAP, backends=_NOT_CPU),
    Case("Conv2d", (4, 4, 3, 1, 1, 1, 4), MAP),
    Case("ConvTranspose2d", (4, 4, 3), MAP, backends=_NOT_CPU),
    Case("LocallyConnected2d", (4, 4, 6, 3), MAP),
    Case("MaxPool2d", (2,), MAP),
    Case("AvgPool2d", (2,), MAP),
    Case("LPPool2d", (2, 2), MAP),
    Case("AdaptiveAvgPool2d", (2,), MAP),
    Case("AdaptiveMaxPool2d", (2,), MAP),
    Case("SpatialPyramidPool2d", ((1, 2),), MAP),
    Case("MaxUnpool2d", (2,), MAP, rest=_indices, backends=_NOT_CUDA),
    Case("LocalResponseNorm", (3,), MAP),
    Case("SpatialResponseNorm", (3,), MAP),
    Case("BatchNorm2d", (4,), MAP),
    Case("BatchNorm2d", (4,), MAP, training=False),
    Case("Softmax", (1,), ROWS, backends=_NOT_CUDA),
    Case("LogSoftmax", (1,), ROWS, backends=_NOT_CUDA),
    Case("CrossEntropyLoss", (), ROWS, rest=_targets, backends=_NOT_CUDA),
    Case("Dropout", (0.5,), MAP, backends=_NOT_CUDA),
    Case("ReLU", (), MAP),
    Case("RNN", (4, 8), STEPS, backends=("auto", "cpu")),
    Case("LSTM", (4, 8), STEPS, backends=("auto", "cpu")),
    Case("GRU", (4, 8), STEPS, backends=("auto", "cpu")),
    Case("RNNCell", (4, 8), (2, 4), backends=("auto", "cpu")),
    Case("LSTMCell", (4, 8), (2, 4), backends=("auto", "cpu")),
    Case("GRUCell", (4, 8), (2, 4), backends=("auto", "cpu")),
)


def call(layer: torch.nn.Module, given: tuple, backward: bool) -> Callable[[], object]:
    if not backward:
        return torch.no_grad()(lambda: layer(*given))
    leaves = [given[0].clone().requires_grad_(), *layer.parameters()]

    def both() -> object:
        y = layer(leaves[0], *given[1:])
        y = y[0] if isinstance(y, tuple) else y
        return torch.autograd.grad(y, leaves, torch.ones_like(y), allow_unused=True)

    return both


def rows(pattern: str, backends: list[str], seconds: float) -> list[dict[str, object]]:
    made = []
    for case in CASES:
        if pattern not in str(case):
            continue
        given = torch.randn(case.shape), *case.rest()
        layers = {"torch": case.made()}
        for backend in backends:
            if backend in case.backends:
                layers[backend] = case.made(backend)
                layers[backend].load_state_dict(layers["torch"].state_dict())
        for passes, backward in (("forward", False), ("forward + backward", True)):
            calls = {
                name: call(layer.train(case.training), given, backward)
                for name, layer in layers.items()
            }
            times = measure.interleave(calls, seconds=seconds, rounds=(60, 4000))
            least = {name: time.minimum * 1e6 for name, time in times.items()}
            row = {"layer": str(case), "passes": passes}
            row |= {
                f"{name}_us": f"{least[name]:.2f}" if name in least else ""
                for name in ("torch", *BACKENDS)
            }
            if "auto" in least:
                row["auto_above_us"] = f"{least['auto'] - least['torch']:.2f}"
            made.append(row)
            print(*row.values(), sep="  ", flush=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", default="", help="only layers whose name contains this")
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--seconds", type=float, default=0.5, help="how long to measure a row")
    parser.add_argument("--out", type=Path, help="the CSV to write")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not torch.cuda.is_available():
        no_gpu.serve_triton()
        no_gpu.serve_cuda()
    made = rows(arguments.cases, arguments.backends, arguments.seconds)
    if "auto" in arguments.backends:
        worst = max(made, key=lambda row: float(row["auto_above_us"]))
        print(f"auto costs {worst['auto_above_us']} us more at most: {worst['layer']}")
    if arguments.out is not None:
        write_table(made[0], made, arguments.out)


if __name__ == "__main__":
    main()
