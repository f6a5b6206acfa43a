"""What a call costs before any arithmetic: ``python bench/overhead.py --out FILE``.

Layers of this package and PyTorch's own with equal weights on inputs of a few hundred bytes, timed
in turns in one process, one thread: forward without gradients, and forward + backward. Under
``auto`` such inputs are PyTorch's own operators', so the extra time of ours is the way there; under
``cpu`` it is the way to a kernel; under ``triton`` and ``cuda`` the way to a launch that does
nothing (no_gpu.py), all on the CPU. The table's figures are the minimum of many samples, in
microseconds.

Empty are the columns of backends that do not serve a layer: a dense convolution on a CPU is
PyTorch's own; softmax, cross entropy and dropout are written in Triton alone, regions of interest
and the suppression of boxes in C++ alone, and PyTorch has no operator for these two. Max unpooling
on ``cuda`` and ``nms`` go the whole way at each call, for they look at what a tensor holds: whether
positions are inside, and how many boxes stay.
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

from pydl import functional, measure, nn  # noqa: E402
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
    has_gradient: bool = True

    def __str__(self) -> str:
        return f"{self.layer}{self.arguments or '()'}" + ("" if self.training else ".eval()")

    def made(self, backend: str | None = None) -> torch.nn.Module:
        """By PyTorch without a backend: its layer, or what it can do for one of ours alone."""
        stock = getattr(torch.nn, self.layer, None)
        if backend is None and stock is not None:
            return stock(*self.arguments)
        named = None if backend == "auto" else backend or "aten"  # what nobody says is `auto`
        if self.layer == "nms":
            return _Nms(named)
        return getattr(nn, self.layer)(*self.arguments, backend=named)

    @property
    def has_stock(self) -> bool:
        """Whether PyTorch's operators can do it."""
        return self.layer not in ("RoIAlign", "RoIPool", "nms")


class _Nms(torch.nn.Module):
    def __init__(self, backend: str | None) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
        return functional.nms(boxes, scores, threshold, backend=self.backend)


def _indices() -> tuple[torch.Tensor]:
    return (torch.arange(36).view(MAP[2:]).repeat(1, 4, 1, 1),)


def _targets() -> tuple[torch.Tensor]:
    return (torch.arange(4),)


def _boxes() -> tuple[torch.Tensor]:
    return (torch.tensor([[0.0, 1, 1, 4, 5], [0, 0, 0, 3, 3]]),)


def _scores() -> tuple[torch.Tensor, float]:
    return torch.tensor([0.5, 0.75, 0.25, 1.0]), 0.5


_NOT_CPU = ("auto", "triton", "cuda")
_NOT_CUDA = ("auto", "cpu", "triton")
_BOXES = ("auto", "cpu", "cuda")
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
    Case("MaxUnpool2d", (2,), MAP, rest=_indices),
    Case("RoIAlign", (2, 1.0, 2), MAP, rest=_boxes, backends=_BOXES),
    Case("RoIPool", (2, 1.0), MAP, rest=_boxes, backends=_BOXES),
    Case("nms", (), (4, 4), rest=_scores, backends=_BOXES, has_gradient=False),
    Case("LocalResponseNorm", (3,), MAP),
    Case("SpatialResponseNorm", (3,), MAP),
    Case("BatchNorm2d", (4,), MAP),
    Case("BatchNorm2d", (4,), MAP, training=False),
    Case("Softmax", (1,), ROWS, backends=_NOT_CUDA),
    Case("LogSoftmax", (1,), ROWS, backends=_NOT_CUDA),
    Case("CrossEntropyLoss", (), ROWS, rest=_targets, backends=_NOT_CUDA),
    Case("Dropout", (0.5,), MAP, backends=_NOT_CUDA),
    Case("ReLU", (), MAP),
    Case("RNN", (4, 8), STEPS),
    Case("LSTM", (4, 8), STEPS),
    Case("GRU", (4, 8), STEPS),
    Case("RNNCell", (4, 8), (2, 4)),
    Case("LSTMCell", (4, 8), (2, 4)),
    Case("GRUCell", (4, 8), (2, 4)),
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
        layers = {"torch": case.made()} if case.has_stock else {}
        for backend in backends:
            if backend in case.backends:
                layers[backend] = case.made(backend)
                first = next(iter(layers.values()))
                layers[backend].load_state_dict(first.state_dict())
        both = (("forward", False), ("forward + backward", True))
        for passes, backward in both[: 1 + case.has_gradient]:
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
            compared = {"auto", "torch"} <= least.keys()
            row["auto_above_us"] = f"{least['auto'] - least['torch']:.2f}" if compared else ""
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
    compared = [row for row in made if row["auto_above_us"]]
    if compared:
        worst = max(compared, key=lambda row: float(row["auto_above_us"]))
        print(f"auto costs {worst['auto_above_us']} us more at most: {worst['layer']}")
    if arguments.out is not None:
        write_table(made[0], made, arguments.out)


if __name__ == "__main__":
    main()
