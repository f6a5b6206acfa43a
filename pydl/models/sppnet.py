"""SPP-net: He, Zhang, Ren, Sun, "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual
Recognition", 2014.

Behind the last convolution lies not a pool of a fixed window but a pyramid of fixed numbers of
bins, so that the fully connected layers get as many numbers from an image of any size and shape:
one set of weights takes them all, in training as well.
"""

import torch

from pydl import nn
from pydl.models.model import Model

PYRAMID = (6, 3, 2, 1)  # bins along a side, level by level: 36 + 9 + 4 + 1 = 50


class SPPNet(nn.Module):
    """The paper's ZF-5 (five convolutions, after Zeiler and Fergus) with a pyramid on top.

    Args:
        num_classes: scores per image.
        levels: bins along a side of each level of the pyramid; the paper's (4, 2, 1) gives 21.
    """

    def __init__(self, num_classes: int = 1000, levels: tuple[int, ...] = PYRAMID) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 96, kernel_size=7, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=1e-4),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            nn.Conv2d(96, 256, kernel_size=5, stride=2),
            nn.ReLU(inplace=True),
            nn.LocalResponseNorm(5, alpha=1e-4),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            nn.Conv2d(256, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 384, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pyramid = nn.SpatialPyramidPool2d(levels)
        bins = sum(level * level for level in levels)
        self.classifier = nn.Sequential(
            nn.Linear(256 * bins, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, H, W], 224 x 224 in the paper
        x = self.features(x)  # [N, 256, 13, 13]
        x = self.pyramid(x)  # [N, 256 * bins] from any H and W
        return self.classifier(x)  # [N, num_classes]


def sppnet(num_classes: int = 1000) -> SPPNet:
    """SPP-net with the paper's pyramid of 50 bins."""
    return SPPNet(num_classes)


MODELS = (
    Model(
        "sppnet",
        sppnet,
        (3, 224, 224),
        "ZF-5 with spatial pyramid pooling, for images of any size",
        "He, Zhang, Ren, Sun 2014, Spatial Pyramid Pooling in Deep Convolutional Networks",
        small=(3, 64, 64),
        parameters=77_037_672,
    ),
)
