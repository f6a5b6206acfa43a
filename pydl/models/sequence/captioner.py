"""A sentence about an image: Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio, "Show,
Attend and Tell: Neural Image Caption Generation with Visual Attention", 2015, with soft attention.

Convolutions make the image into a map, and a decoder reads for each word the places of the map that
it needs. Beside its features each place has its coordinates, for sentences that say where things
are.
"""

from typing import Any

import torch

from pydl import nn
from pydl.models.model import Model
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.decoder import State
from pydl.models.sequence.writer import Writer
from pydl.models.stages import stages


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


class Captioner(Writer):
    """Writes symbols about images.

    Args:
        features: from images to maps (B, size, H, W).
        size: see ``features``.
        symbols: how many there are, the decoder's own among them.
        options: of :class:`Writer`.
    """

    def __init__(self, features: nn.Module, size: int, symbols: int, **options: Any) -> None:
        super().__init__(size + 2, size + 2, symbols, **options)
        self.features, self.size = features, size
        self.places = Places()

    def read(self, images: torch.Tensor) -> tuple[State, Memory]:
        """What the decoder starts from: the mean of the map, and its H * W places line by line."""
        return self.begin_with(self.places(self.features(images)))

    def begin_with(self, maps: torch.Tensor) -> tuple[State, Memory]:
        """The same of maps (B, size + 2, H, W)."""
        values = maps.flatten(2).transpose(1, 2).contiguous()  # [B, H W, size + 2]
        return self.begin(values.mean(1), values)


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
