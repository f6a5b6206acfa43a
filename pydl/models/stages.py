"""Convolutions in stages, for small networks of images that take their maps elsewhere."""

from collections.abc import Sequence

from pydl import nn


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
