"""DenseNet: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks",
2016.

As torchvision builds them, whose ``state_dict`` loads: the paper's DenseNet-BC, with bottlenecks
and with transitions that halve the maps. Batch normalisation and ReLU are one operator.
"""

from collections import OrderedDict

import torch

from pydl import nn
from pydl.models.model import as_torchvision


class DenseLayer(nn.Module):
    """1x1 to four times as many maps as it adds, 3x3 to those; they come behind its input's."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNormAct2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, kernel_size=1, bias=False)
        self.norm2 = nn.BatchNormAct2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, kernel_size=3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(self.norm1(x))
        y = self.conv2(self.norm2(y))
        return torch.cat((x, y), dim=1)


def _block(inputs: int, growth: int, depth: int) -> nn.Sequential:
    """Layers each of which sees the maps of all before it."""
    return nn.Sequential(
        OrderedDict(
            (f"denselayer{i + 1}", DenseLayer(inputs + i * growth, growth)) for i in range(depth)
        )
    )


def _transition(inputs: int) -> nn.Sequential:
    """Half as many maps, of half the side."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNormAct2d(inputs),
            conv=nn.Conv2d(inputs, inputs // 2, kernel_size=1, bias=False),
            pool=nn.AvgPool2d(kernel_size=2, stride=2),
        )
    )


class DenseNet(nn.Module):
    """A stem, four dense blocks with transitions between them, an average over the map and scores.

    Args:
        growth: maps that each layer adds; the stem has twice as many.
        depths: layers of each block.
        num_classes: scores per image.
    """

    def __init__(
        self, growth: int, depths: tuple[int, int, int, int], num_classes: int = 1000
    ) -> None:
        super().__init__()
        maps = 2 * growth
        self.features = nn.Sequential(
            OrderedDict(
                conv0=nn.Conv2d(3, maps, kernel_size=7, stride=2, padding=3, bias=False),
                norm0=nn.BatchNormAct2d(maps),
                pool0=nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            )
        )
        for i, depth in enumerate(depths, start=1):
            self.features.add_module(f"denseblock{i}", _block(maps, growth, depth))
            maps += depth * growth
            if i < len(depths):
                self.features.add_module(f"transition{i}", _transition(maps))
                maps //= 2
        # Its ReLU is in `forward`: `features` returns what torchvision's does.
        self.features.add_module("norm5", nn.BatchNorm2d(maps))
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(maps, num_classes)
        nn.init.zeros_(self.classifier.bias)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224]
        x = self.features(x)  # [N, 1024 to 2208, 7, 7]
        x = self.avgpool(self.relu(x))  # [N, 1024 to 2208, 1, 1]
        return self.classifier(x.flatten(1))  # [N, num_classes]


def densenet121(num_classes: int = 1000) -> DenseNet:
    """DenseNet-121."""
    return DenseNet(32, (6, 12, 24, 16), num_classes)


def densenet161(num_classes: int = 1000) -> DenseNet:
    """DenseNet-161, whose layers add 48 maps instead of 32."""
    return DenseNet(48, (6, 12, 36, 24), num_classes)


def densenet169(num_classes: int = 1000) -> DenseNet:
    """DenseNet-169."""
    return DenseNet(32, (6, 12, 32, 32), num_classes)


def densenet201(num_classes: int = 1000) -> DenseNet:
    """DenseNet-201."""
    return DenseNet(32, (6, 12, 48, 32), num_classes)


_HUANG = "Huang, Liu, van der Maaten, Weinberger 2016, Densely Connected Convolutional Networks"


MODELS = (
    as_torchvision(densenet121, "DenseNet of 121 layers", _HUANG, 7_978_856, "2.834", 74.434),
    as_torchvision(
        densenet161, "DenseNet of 161 layers, wider ones", _HUANG, 28_681_000, "7.728", 77.138
    ),
    as_torchvision(densenet169, "DenseNet of 169 layers", _HUANG, 14_149_480, "3.360", 75.6),
    as_torchvision(densenet201, "DenseNet of 201 layers", _HUANG, 20_013_928, "4.291", 76.896),
)
