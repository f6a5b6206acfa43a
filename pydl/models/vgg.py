"""VGG: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
2014.

As torchvision builds them, whose ``state_dict`` loads; those with batch normalisation are later
than the paper.
"""

import torch

from pydl import nn
from pydl.models.model import as_torchvision

# Maps of the 3x3 convolutions between one pool and the next.
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_VGG19 = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


def features(stages: tuple[tuple[int, ...], ...], norm: bool) -> nn.Sequential:
    """The convolutions of each stage, which has that many maps, and a pool behind each stage."""
    layers: list[nn.Module] = []
    inputs = 3
    for stage in stages:
        for maps in stage:
            layers.append(nn.Conv2d(inputs, maps, kernel_size=3, padding=1))
            # With ReLU in the norm its place in the row stays, so that the names do.
            layers += [nn.BatchNormAct2d(maps), nn.Identity()] if norm else [nn.ReLU(inplace=True)]
            inputs = maps
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, each with a pool behind it, and three fully connected
    layers.

    Args:
        stages: maps of the convolutions of each stage.
        norm: whether a batch normalisation follows each convolution.
        num_classes: scores per image.
    """

    def __init__(
        self, stages: tuple[tuple[int, ...], ...], norm: bool, num_classes: int = 1000
    ) -> None:
        super().__init__()
        self.features = features(stages, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, num_classes),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224]
        x = self.features(x)  # [N, 512, 7, 7]
        x = self.avgpool(x)  # [N, 512, 7, 7] from any input of 32 pixels and more
        return self.classifier(x.flatten(1))  # [N, num_classes]


def vgg16(num_classes: int = 1000) -> VGG:
    """VGG of 16 layers with weights, configuration D of the paper."""
    return VGG(VGG16, norm=False, num_classes=num_classes)


def vgg16_bn(num_classes: int = 1000) -> VGG:
    """:func:`vgg16` with batch normalisation."""
    return VGG(VGG16, norm=True, num_classes=num_classes)


def vgg19(num_classes: int = 1000) -> VGG:
    """VGG of 19 layers with weights, configuration E of the paper."""
    return VGG(_VGG19, norm=False, num_classes=num_classes)


def vgg19_bn(num_classes: int = 1000) -> VGG:
    """:func:`vgg19` with batch normalisation."""
    return VGG(_VGG19, norm=True, num_classes=num_classes)


_SIMONYAN = (
    "Simonyan, Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition"
)

MODELS = (
    as_torchvision(vgg16, "VGG of 16 layers", _SIMONYAN, 138_357_544, "15.470", 71.592),
    as_torchvision(
        vgg16_bn,
        "VGG of 16 layers with batch normalisation",
        _SIMONYAN,
        138_365_992,
        "15.470",
        73.36,
    ),
    as_torchvision(vgg19, "VGG of 19 layers", _SIMONYAN, 143_667_240, "19.632", 72.376),
    as_torchvision(
        vgg19_bn,
        "VGG of 19 layers with batch normalisation",
        _SIMONYAN,
        143_678_248,
        "19.632",
        74.218,
    ),
)
