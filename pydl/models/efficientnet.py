"""EfficientNet: Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks", 2019.

As torchvision builds them, whose ``state_dict`` loads: B0, and B1 to B7, which are B0 with more
maps, more blocks and larger images.
"""

import math
from collections.abc import Callable
from functools import partial

import torch

from pydl import nn
from pydl.models.model import as_torchvision

# Table 1 of the paper, B0: expansion, kernel, stride of the first block, maps, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)

Norm = Callable[[int], nn.Module]  # of that many maps
# How the published weights of B5 to B7 were trained.
_SLOW_NORM: Norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


def _scaled(maps: int, width: float) -> int:
    """``width`` times as many, as the multiple of 8 nearest to that; the next one where that loses
    more than a tenth."""
    wanted = maps * width
    nearest = max(8, int(wanted + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * wanted else nearest


def _convolution(
    inputs: int, outputs: int, kernel: int, norm: Norm, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution, batch normalisation and SiLU."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        norm(outputs),
        nn.SiLU(inplace=True),
    )


class SqueezeExcitation(nn.Module):
    """Scales each map by a number between 0 and 1 that the averages of all maps decide."""

    def __init__(self, maps: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.ConvBiasAct2d(maps, squeezed, kernel_size=1, activation="silu")
        self.fc2 = nn.Conv2d(squeezed, maps, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.fc2(self.fc1(self.avgpool(x)))
        return x * scale.sigmoid()


class MBConv(nn.Module):
    """1x1 to more maps, depthwise convolution, squeeze and excitation, 1x1 to fewer without an
    activation, and a shortcut where the input is as large as the output.

    In training, stochastic depth leaves only the shortcut of some images.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
        drop: float,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.has_shortcut = stride == 1 and inputs == outputs
        maps = expansion * inputs
        expand = [] if expansion == 1 else [_convolution(inputs, maps, 1, norm)]
        self.block = nn.Sequential(
            *expand,
            _convolution(maps, maps, kernel, norm, stride, groups=maps),
            SqueezeExcitation(maps, inputs // 4),
            nn.Sequential(nn.Conv2d(maps, outputs, kernel_size=1, bias=False), norm(outputs)),
        )
        self.stochastic_depth = nn.Dropout(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.block(x)
        if not self.has_shortcut:
            return y
        if self.training:
            y = y * self.stochastic_depth(y.new_ones(len(y), 1, 1, 1))  # all of an image or nothing
        return x + y


class EfficientNet(nn.Module):
    """A stem, seven stages of blocks, a 1x1 convolution, an average over the map and scores.

    Args:
        width, depth: maps and blocks of each stage, as multiples of B0's.
        dropout: the probability before the scores.
        num_classes: scores per image.
        norm: makes a batch normalisation.
    """

    def __init__(
        self,
        width: float,
        depth: float,
        dropout: float,
        num_classes: int = 1000,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        depths = [math.ceil(blocks * depth) for *_, blocks in _STAGES]
        inputs = _scaled(32, width)
        layers = [_convolution(3, inputs, 3, norm, stride=2)]
        before = 0  # blocks of earlier stages; stochastic depth drops later blocks more often
        for (expansion, kernel, stride, maps, _), blocks in zip(_STAGES, depths, strict=True):
            outputs = _scaled(maps, width)
            stage = []
            for i in range(blocks):
                drop = 0.2 * (before + i) / sum(depths)
                how = expansion, kernel, stride if i == 0 else 1, drop, norm
                stage.append(MBConv(outputs if i else inputs, outputs, *how))
            layers.append(nn.Sequential(*stage))
            before += blocks
            inputs = outputs
        layers.append(_convolution(inputs, 4 * inputs, 1, norm))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 * inputs, num_classes))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            elif isinstance(layer, nn.Linear):
                bound = layer.out_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound)
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224] to [N, 3, 600, 600]
        x = self.features(x)  # [N, 1280, 7, 7] to [N, 2560, 19, 19]
        x = self.avgpool(x)  # [N, 1280 to 2560, 1, 1]
        return self.classifier(x.flatten(1))  # [N, num_classes]


def efficientnet_b0(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B0."""
    return EfficientNet(1.0, 1.0, 0.2, num_classes)


def efficientnet_b1(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B1."""
    return EfficientNet(1.0, 1.1, 0.2, num_classes)


def efficientnet_b2(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B2."""
    return EfficientNet(1.1, 1.2, 0.3, num_classes)


def efficientnet_b3(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B3."""
    return EfficientNet(1.2, 1.4, 0.3, num_classes)


def efficientnet_b4(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B4."""
    return EfficientNet(1.4, 1.8, 0.4, num_classes)


def efficientnet_b5(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B5."""
    return EfficientNet(1.6, 2.2, 0.4, num_classes, _SLOW_NORM)


def efficientnet_b6(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B6."""
    return EfficientNet(1.8, 2.6, 0.5, num_classes, _SLOW_NORM)


def efficientnet_b7(num_classes: int = 1000) -> EfficientNet:
    """EfficientNet-B7."""
    return EfficientNet(2.0, 3.1, 0.5, num_classes, _SLOW_NORM)


_TAN = "Tan, Le 2019, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"

MODELS = tuple(
    as_torchvision(
        build,
        f"EfficientNet-{build.__name__[-2:].upper()}",
        _TAN,
        parameters,
        giga,
        top1,
        side=side,
    )
    for build, side, parameters, giga, top1 in (
        (efficientnet_b0, 224, 5_288_548, "0.386", 77.692),
        (efficientnet_b1, 240, 7_794_184, "0.687", 78.642),
        (efficientnet_b2, 288, 9_109_994, "1.088", 80.608),
        (efficientnet_b3, 300, 12_233_232, "1.827", 82.008),
        (efficientnet_b4, 380, 19_341_616, "4.394", 83.384),
        (efficientnet_b5, 456, 30_389_784, "10.266", 83.444),
        (efficientnet_b6, 528, 43_040_704, "19.068", 84.008),
        (efficientnet_b7, 600, 66_347_960, "37.746", 84.122),
    )
)
