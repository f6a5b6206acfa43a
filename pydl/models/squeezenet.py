"""SqueezeNet: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy
with 50x fewer parameters and <0.5MB model size", 2016.

As torchvision builds it, whose ``state_dict`` loads, without the shortcuts that the paper tries as
a variant. Bias and ReLU belong to the operator of their convolution.
"""

import torch

from pydl import nn
from pydl.models.model import as_torchvision

# Squeezed maps of the fire modules between one pool and the next.
_SQUEEZENET1_0 = ((16, 16, 32), (32, 48, 48, 64), (64,))
_SQUEEZENET1_1 = ((16, 16), (32, 32), (48, 48, 64, 64))


class Fire(nn.Module):
    """1x1 to few maps, then 1x1 and 3x3 side by side, each to four times as many."""

    def __init__(self, inputs: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.ConvBiasAct2d(inputs, squeezed, kernel_size=1)
        self.expand1x1 = nn.ConvBiasAct2d(squeezed, 4 * squeezed, kernel_size=1)
        self.expand3x3 = nn.ConvBiasAct2d(squeezed, 4 * squeezed, kernel_size=3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x)
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), dim=1)


def _features(maps: int, kernel: int, stages: tuple[tuple[int, ...], ...]) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.ConvBiasAct2d(3, maps, kernel, stride=2),
        nn.Identity(),  # where ReLU would stand, so that the names stay
    ]
    inputs = maps
    for stage in stages:
        layers.append(nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
        for squeezed in stage:
            layers.append(Fire(inputs, squeezed))
            inputs = 8 * squeezed
    return nn.Sequential(*layers)


class SqueezeNet(nn.Module):
    """A convolution, three stages of fire modules, each behind a pool, a convolution to one map per
    class and the average of each.

    Args:
        maps: of the first convolution.
        kernel: side of the first convolution's window.
        stages: squeezed maps of each fire module, by stage.
        num_classes: scores per image.
    """

    def __init__(
        self, maps: int, kernel: int, stages: tuple[tuple[int, ...], ...], num_classes: int = 1000
    ) -> None:
        super().__init__()
        self.features = _features(maps, kernel, stages)
        scores = nn.ConvBiasAct2d(512, num_classes, kernel_size=1)
        self.classifier = nn.Sequential(nn.Dropout(), scores, nn.AdaptiveAvgPool2d(1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(scores.weight, std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224]
        x = self.features(x)  # [N, 512, 13, 13]
        x = self.classifier(x)  # [N, num_classes, 1, 1]
        return x.flatten(1)  # [N, num_classes]


def squeezenet1_0(num_classes: int = 1000) -> SqueezeNet:
    """SqueezeNet as published."""
    return SqueezeNet(96, 7, _SQUEEZENET1_0, num_classes)


def squeezenet1_1(num_classes: int = 1000) -> SqueezeNet:
    """SqueezeNet 1.1: a smaller first convolution and earlier pools, for less than half the
    operations."""
    return SqueezeNet(64, 3, _SQUEEZENET1_1, num_classes)


_IANDOLA = (
    "Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer 2016, SqueezeNet: AlexNet-level accuracy with "
    "50x fewer parameters and <0.5MB model size"
)

MODELS = (
    as_torchvision(squeezenet1_0, "SqueezeNet as published", _IANDOLA, 1_248_424, "0.819", 58.092),
    as_torchvision(
        squeezenet1_1, "SqueezeNet with earlier pools", _IANDOLA, 1_235_496, "0.349", 58.178
    ),
)
