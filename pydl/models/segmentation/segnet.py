"""SegNet: Badrinarayanan, Kendall, Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
Architecture for Image Segmentation", 2015.

The convolutions of VGG of 16 layers, and the same in reverse: each pool remembers where its maxima
were, and an unpooling puts values back there. Batch normalisation and ReLU are one operator.
"""

import torch

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model
from pydl.models.vgg import VGG16


def _stage(inputs: int, stage: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for maps in stage:
        layers += [nn.Conv2d(inputs, maps, 3, padding=1), nn.BatchNormAct2d(maps)]
        inputs = maps
    return nn.Sequential(*layers)


class SegNet(nn.Module):
    """From images (N, channels, H, W) to scores (N, num_classes, H, W); H and W at least 2 to the
    number of stages.

    Args:
        num_classes: scores per pixel.
        channels: of the images.
        stages: maps of the convolutions before each pool.
    """

    def __init__(
        self,
        num_classes: int = 11,
        *,
        channels: int = 3,
        stages: tuple[tuple[int, ...], ...] = VGG16,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        inputs = channels
        for stage in stages:
            self.encoder.append(_stage(inputs, stage))
            # What the stage's convolutions are given, from the last to the first.
            given = (inputs, *stage[:-1])[::-1] if self.decoder else stage[:-1][::-1]
            self.decoder.insert(0, _stage(stage[-1], given))
            inputs = stage[-1]
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.score = nn.Conv2d(stages[0][0], num_classes, 3, padding=1)
        he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 360, 480]
        pooled = []
        for stage in self.encoder:
            x = stage(x)
            size = x.shape[2:]
            x, indices = self.pool(x)  # [N, 64, 180, 240] to [N, 512, 11, 15]
            pooled.append((indices, size))
        for stage in self.decoder:
            x = stage(self.unpool(x, *pooled.pop()))  # [N, 512, 22, 30] to [N, 64, 360, 480]
        return self.score(x)  # [N, num_classes, 360, 480]


def segnet(num_classes: int = 11) -> SegNet:
    """SegNet with the paper's 26 convolutions."""
    return SegNet(num_classes)


MODELS = (
    Model(
        "segnet",
        segnet,
        (3, 360, 480),
        "SegNet, whose decoder puts maxima back to their places",
        "Badrinarayanan, Kendall, Cipolla 2015, SegNet: A Deep Convolutional Encoder-Decoder "
        "Architecture for Image Segmentation",
        task="segmentation",
        small=(3, 64, 64),
        parameters=29_449_355,
    ),
)
