"""DeepLab-LargeFOV: Chen, Papandreou, Kokkinos, Murphy, Yuille, "Semantic Image Segmentation with
Deep Convolutional Nets and Fully Connected CRFs", 2015.

VGG of 16 layers whose last two pools keep the size of their maps; the convolutions behind them are
dilated instead, the first of those that were fully connected so far that a 3x3 window sees as much
as 7x7 did before. Without the paper's second part, the conditional random field.
"""

import torch

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model
from pydl.models.vgg import VGG16


class DeepLabLargeFOV(nn.Module):
    """From images (N, 3, H, W) to scores (N, num_classes, H, W), computed 8 pixels apart.

    Best are sides of 8 k + 1 pixels, as in the paper: scores then lie on pixels.

    Args:
        num_classes: scores per pixel.
        stages: maps of the convolutions before each of the five pools.
        hidden: maps of the two convolutions that were fully connected layers.
    """

    def __init__(
        self,
        num_classes: int = 21,
        *,
        stages: tuple[tuple[int, ...], ...] = VGG16,
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for number, stage in enumerate(stages):
            rate = 2 if number == 4 else 1
            for maps in stage:
                layers.append(nn.Conv2d(inputs, maps, 3, padding=rate, dilation=rate))
                layers.append(nn.ReLU(inplace=True))
                inputs = maps
            layers.append(nn.MaxPool2d(3, stride=2 if number < 3 else 1, padding=1))
        self.features = nn.Sequential(*layers)
        self.pool5a = nn.AvgPool2d(3, stride=1, padding=1)
        self.classifier = nn.Sequential(
            nn.Conv2d(inputs, hidden, 3, padding=12, dilation=12),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Conv2d(hidden, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Conv2d(hidden, num_classes, kernel_size=1),
        )
        he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 321, 321]
        size = x.shape[2:]
        x = self.features(x)  # [N, 512, 41, 41]
        x = self.classifier(self.pool5a(x))  # [N, num_classes, 41, 41]
        return nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)


def deeplab_largefov(num_classes: int = 21) -> DeepLabLargeFOV:
    """DeepLab-LargeFOV."""
    return DeepLabLargeFOV(num_classes)


MODELS = (
    Model(
        "deeplab_largefov",
        deeplab_largefov,
        (3, 321, 321),
        "DeepLab with a large field of view on VGG of 16 layers",
        "Chen, Papandreou, Kokkinos, Murphy, Yuille 2015, Semantic Image Segmentation with Deep "
        "Convolutional Nets and Fully Connected CRFs",
        task="segmentation",
        small=(3, 65, 65),
        parameters=20_505_429,
    ),
)
