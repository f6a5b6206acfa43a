"""MobileNetV2: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", 2018.

As torchvision builds it, whose ``state_dict`` loads. Batch normalisation and the shortcut's
addition are one operator.
"""

import torch

from pydl import nn
from pydl.models.model import as_torchvision

# Table 2 of the paper: expansion, maps, blocks, stride of the first of them.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution, batch normalisation and ReLU6."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 to more maps, depthwise 3x3, 1x1 to fewer without an activation, and a shortcut where
    the input is as large as the output."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        self.has_shortcut = stride == 1 and inputs == outputs
        maps = expansion * inputs
        expand = [] if expansion == 1 else [_convolution(inputs, maps, kernel=1)]
        self.conv = nn.Sequential(
            *expand,
            _convolution(maps, maps, kernel=3, stride=stride, groups=maps),
            nn.Conv2d(maps, outputs, kernel_size=1, bias=False),
            nn.BatchNormAct2d(outputs, activation="none"),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.has_shortcut else None
        *layers, norm = self.conv
        for layer in layers:
            x = layer(x)
        return norm(x, shortcut)


class MobileNetV2(nn.Module):
    """A stem, seven stages of inverted residuals, a 1x1 convolution, an average over the map and
    scores.

    Args:
        num_classes: scores per image.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, kernel=3, stride=2)]
        inputs = 32
        for expansion, maps, depth, stride in _STAGES:
            for i in range(depth):
                layers.append(InvertedResidual(inputs, maps, expansion, stride if i == 0 else 1))
                inputs = maps
        layers.append(_convolution(inputs, 1280, kernel=1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224]
        x = self.features(x)  # [N, 1280, 7, 7]
        x = self.avgpool(x)  # [N, 1280, 1, 1]
        return self.classifier(x.flatten(1))  # [N, num_classes]


def mobilenet_v2(num_classes: int = 1000) -> MobileNetV2:
    """MobileNetV2."""
    return MobileNetV2(num_classes)


MODELS = (
    as_torchvision(
        mobilenet_v2,
        "MobileNetV2",
        "Sandler, Howard, Zhu, Zhmoginov, Chen 2018, MobileNetV2: Inverted Residuals and Linear "
        "Bottlenecks",
        3_504_872,
        "0.301",
        71.878,
    ),
)
