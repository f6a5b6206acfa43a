"""What this package is fast at, and what it is not: the layers of an AlexNet-shaped network on
pictures of real digits, held to the float64 reference and timed in turns with stock PyTorch.

The network begins as AlexNet does (Krizhevsky, Sutskever, Hinton 2012) and goes on with layers that
came later: batch normalisation (Ioffe, Szegedy 2015), a depthwise convolution (Howard et al. 2017),
and a GRU (Cho et al. 2014) that reads the last map line by line. It is not trained, which would
take hours: its first filters are given, its other weights are PyTorch's initial ones.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from pydl import nn
from pydl.data.scenes import scenes
from pydl.measure import Action, interleave
from pydl.models.alexnet import response_norm
from pydl.models.calls import served
from pydl.models.record import record
from pydl.models.stock import as_torch
from pydl.visualize import operators
from pydl.visualize.operators import OperatorRow

SIDE = 227  # pixels of AlexNet's input
IMAGES = 4  # in a batch
SECONDS = 0.3  # of measuring each pass of each layer
# All of the network but its dense convolutions, which are PyTorch's own on a CPU, and its ReLU.
LAYERS = {
    "lrn1": "local response normalisation",
    "pool1.max": "max pool",
    "pool1.average": "average pool",
    "pool1.l2": "L2 pool",
    "bn2": "batch normalisation, ReLU",
    "conv3": "depthwise convolution",
    "bn3": "batch normalisation",
    "pool3": "max pool",
    "pool4": "max pool",
    "gru": "GRU of 36 steps",
}
SEEN = ("relu1", "lrn1", "pool1.max", "pool1.average", "pool1.l2", "bn2", "pool3", "pool4")
WHOLE = "all layers"


def gabor(orientations: int = 8, side: int = 11) -> torch.Tensor:
    """Filters (12 * orientations, 1, side, side) that answer to edges and lines of one direction,
    as those of AlexNet's first layer do once they are learned: waves under a bell, three lengths in
    four phases for each direction, without answer to a plain ground, of norm 1."""
    half = side // 2
    y, x = torch.meshgrid(*[torch.arange(-half, half + 1.0)] * 2, indexing="ij")
    bell = torch.exp(-(x**2 + y**2) / (2 * (side / 4.5) ** 2))
    filters = []
    for turn in range(orientations):
        angle = math.pi * turn / orientations
        along = x * math.cos(angle) + y * math.sin(angle)
        for length in (side / 2.5, side / 1.75, side):
            for phase in range(4):
                wave = bell * torch.cos(2 * math.pi * along / length + phase * math.pi / 2)
                wave = wave - bell * wave.sum() / bell.sum()
                filters.append(wave / wave.norm())
    return torch.stack(filters).unsqueeze(1)


class Pools(nn.Module):
    """The three kinds of pool side by side on one map, 3x3 with stride 2; their mean goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.max = nn.MaxPool2d(3, stride=2)
        self.average = nn.AvgPool2d(3, stride=2)
        self.l2 = nn.LPPool2d(2, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        greatest, mean, root_mean_square = self.max(x), self.average(x), self.l2(x) / 3
        return (greatest + mean + root_mean_square) / 3


class Reader(nn.Sequential):
    """From grey values (N, 1, 227, 227), 0 ... 255 less their mean, to (N, 10) scores."""

    def __init__(self) -> None:
        super().__init__(
            OrderedDict(  # [N, 1, 227, 227]
                conv1=nn.Conv2d(1, 96, kernel_size=11, stride=4),  # [N, 96, 55, 55]
                relu1=nn.ReLU(),
                lrn1=response_norm(),
                pool1=Pools(),  # [N, 96, 27, 27]
                conv2=nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=2),  # [N, 256, 27, 27]
                bn2=nn.BatchNormAct2d(256),
                conv3=nn.Conv2d(256, 256, kernel_size=3, padding=1, groups=256),
                bn3=nn.BatchNorm2d(256),
                pool3=nn.MaxPool2d(3, stride=2),  # [N, 256, 13, 13]
                pool4=nn.MaxPool2d(3, stride=2),  # [N, 256, 6, 6]
                gru=nn.GRU(256, 256),  # of [36, N, 256]
                scores=nn.Linear(256, 10),
            )
        )
        with torch.no_grad():
            self.get_parameter("conv1.weight").copy_(gabor())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *layers, gru, scores = self
        for layer in layers:
            x = layer(x)
        read, _ = gru(x.flatten(2).permute(2, 0, 1))  # places line by line
        return scores(read[-1])


@dataclass(frozen=True)
class Shown:
    """What the layers did."""

    pictures: torch.Tensor  # [N, 1, 227, 227] in 0 ... 1
    sentences: Sequence[str]  # what is in them
    maps: Mapping[str, torch.Tensor]  # SEEN, what they gave for the first picture, [C, H, W]
    rows: Sequence[OperatorRow]  # LAYERS
    whole: OperatorRow  # the network's forward, and its step of training but for the update
    load: float  # of the machine at the end: how many processes want a core, this one included


def examine(
    device: torch.device,
    seed: int = 0,
    *,
    images: int = IMAGES,
    side: int = SIDE,
    seconds: float = SECONDS,
) -> Shown:
    """Check and time the layers under the backend in use, in training.

    Args:
        device: where they work.
        seed: of the pictures and the weights.
        images: in a batch.
        side: of the pictures, in pixels.
        seconds: how long to measure each pass of each layer; four times that for all of them.
    """
    made = scenes(images, side, seed=seed, held_out=True, scale=(0.3, 0.5), clutter=4)
    pictures = torch.stack([one.image for one in made])
    labels = torch.stack([one.labels[0] for one in made]).to(device)
    torch.manual_seed(seed)
    model = Reader().to(device)
    x = 255 * (pictures - pictures.mean()).to(device)
    rows = operators.examine(model, x, *LAYERS, seconds=seconds, seed=seed)
    with record(model) as ran, torch.no_grad():
        model(x)
    maps = {name: one.output[0].cpu() for name, one in ran.items() if name in SEEN}
    whole = _whole(model, x, labels, 4 * seconds)
    return Shown(pictures, [one.sentence for one in made], maps, rows, whole, os.getloadavg()[0])


def _whole(model: nn.Module, x: torch.Tensor, labels: torch.Tensor, seconds: float) -> OperatorRow:
    def forward(network: nn.Module) -> Action:
        def action() -> torch.Tensor:
            with torch.no_grad():
                return network(x)

        return action

    def both(network: nn.Module) -> Action:
        weights = list(network.parameters())

        def action() -> object:
            loss = nn.functional.cross_entropy(network(x), labels)
            return torch.autograd.grad(loss, weights)

        return action

    stock = as_torch(model)
    times, backends = {}, {}
    for kind, run in {"forward": forward, "both": both}.items():
        with served() as seen:
            run(model)()
        backends[kind] = ", ".join(sorted({*seen, "aten"}))  # its linear layer's
        actions = {"ours": run(model), "theirs": run(stock)}
        times[kind] = interleave(actions, device=x.device, seconds=seconds, rounds=(5, 400))
    return OperatorRow(WHOLE, tuple(x.shape), backends, (), times)
