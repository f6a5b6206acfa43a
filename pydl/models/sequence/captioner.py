"""A sentence about an image: Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio, "Show,
Attend and Tell: Neural Image Caption Generation with Visual Attention", 2015, with soft attention.

Convolutions make the image into a map, and a decoder reads for each word the places of the map that
it needs. Beside its features each place has its coordinates, for sentences that say where things
are.
"""

from collections.abc import Sequence

import torch

from pydl import nn
from pydl.models.model import Model
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.decoder import Decoder, State
from pydl.models.sequence.search import Written, beam, greedy


class Places(nn.Module):
    """Coordinates beside the features of a map: (B, C + 2, H, W) of (B, C, H, W), from left to
    right and from top to bottom, -1 to 1."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        batch, _, height, width = maps.shape
        down, across = (
            torch.linspace(-1, 1, size, dtype=maps.dtype, device=maps.device)
            for size in (height, width)
        )
        places = [across.expand(height, width), down[:, None].expand(height, width)]
        return torch.cat([maps, torch.stack(places).expand(batch, -1, -1, -1)], 1)


class Captioner(nn.Module):
    """Writes symbols about images.

    Args:
        features: from images to maps (B, size, H, W).
        size: see ``features``.
        symbols: how many there are, the decoder's own among them.
        cell, attention, embedding, hidden, maxout, dropout: see :class:`Decoder`.
    """

    def __init__(
        self,
        features: nn.Module,
        size: int,
        symbols: int,
        *,
        cell: str = "lstm",
        attention: str | None = "additive",
        embedding: int = 32,
        hidden: int = 96,
        maxout: int = 48,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features, self.size = features, size
        self.places = Places()
        self.first = nn.Sequential(nn.Linear(size + 2, hidden), nn.Tanh())
        self.decoder = Decoder(
            symbols,
            size + 2,
            cell=cell,
            attention=attention,
            embedding=embedding,
            hidden=hidden,
            maxout=maxout,
            dropout=dropout,
        )

    def read(self, images: torch.Tensor) -> tuple[State, Memory]:
        """What the decoder starts from: the mean of the map, and its H * W places line by line."""
        maps = self.places(self.features(images))  # [B, size + 2, H, W]
        values = maps.flatten(2).transpose(1, 2).contiguous()  # [B, H W, size + 2]
        return self.decoder.begin(self.first(values.mean(1))), self.decoder.remember(values)

    def forward(
        self, images: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """With the right target before each step.

        Args:
            images: as ``features`` takes them.
            target: (T, B) symbols, int64, the first of each being ``decoder.BEGIN``.

        Returns:
            (T, B, symbols) scores of what comes behind each symbol of the target, and (T, B, H W)
            weights: at which step which place of the map was read.
        """
        return self.decoder(target, *self.read(images))

    def write(self, images: torch.Tensor, *, longest: int = 30, width: int = 1) -> Written:
        """What it writes by itself: :func:`greedy`, or :func:`beam` with a ``width`` above 1."""
        with torch.no_grad():
            state, memory = self.read(images)
        if width == 1:
            return greedy(self.decoder, state, memory, longest)
        return beam(self.decoder, state, memory, longest, width)


def stages(channels: int, maps: Sequence[int]) -> nn.Sequential:
    """A 3x3 convolution with batch normalisation and ReLU for each of ``maps``, and a max pool
    behind each but the last."""
    layers: list[nn.Module] = []
    for i, count in enumerate(maps):
        if i:
            layers.append(nn.MaxPool2d(2))
        layers += [
            nn.Conv2d(channels, count, 3, padding=1, bias=False),
            nn.BatchNorm2d(count),
            nn.ReLU(),
        ]
        channels = count
    return nn.Sequential(*layers)


def captioner(symbols: int = 21) -> Captioner:
    """For grey images of 64x64, whose map has 8x8 places, and sentences about digits."""
    maps = (16, 32, 64, 96)
    return Captioner(stages(1, maps), maps[-1], symbols)


MODELS = (
    Model(
        "captioner",
        captioner,
        (1, 64, 64),
        "a sentence on an image, with attention over a convolutional map",
        "Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio 2015, Show, Attend and Tell: "
        "Neural Image Caption Generation with Visual Attention",
        task="captioning",
        tokens=21,
        small=(1, 16, 16),
        target=(3,),
        parameters=218_165,
    ),
)
