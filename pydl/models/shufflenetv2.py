"""ShuffleNet V2: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN
Architecture Design", 2018.

As torchvision builds them, whose ``state_dict`` loads. Batch normalisation and ReLU are one
operator where one follows the other.
"""

import torch

from pydl import nn
from pydl.models.model import as_torchvision


def _pointwise(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    """1x1, batch normalisation and ReLU."""
    return nn.Conv2d(inputs, outputs, kernel_size=1, bias=False), nn.BatchNormAct2d(outputs)


def _depthwise(maps: int, stride: int) -> tuple[nn.Module, ...]:
    """3x3 of each map by itself, and batch normalisation."""
    conv = nn.Conv2d(maps, maps, 3, stride, padding=1, groups=maps, bias=False)
    return conv, nn.BatchNorm2d(maps)


def _long_branch(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """1x1, depthwise 3x3, 1x1."""
    return nn.Sequential(
        *_pointwise(inputs, outputs),
        nn.Identity(),  # where ReLU would stand, so that the names of what follows stay
        *_depthwise(outputs, stride),
        *_pointwise(outputs, outputs),
    )


def _interleaved(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The maps of both, in turn: what shuffling them in two groups would make of ``a`` and ``b``
    one behind the other, in one copy."""
    return torch.stack((a, b), dim=2).flatten(1, 2)


class Unit(nn.Module):
    """Half of the maps pass as they are; the others go through the long branch."""

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.branch2 = _long_branch(maps // 2, maps // 2, stride=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, dim=1)
        return _interleaved(kept, self.branch2(changed))


class DownUnit(nn.Module):
    """Half the side: all maps go through both branches, each of which returns half of the
    outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.branch1 = nn.Sequential(
            *_depthwise(inputs, stride=2), *_pointwise(inputs, outputs // 2)
        )
        self.branch2 = _long_branch(inputs, outputs // 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _interleaved(self.branch1(x), self.branch2(x))


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(inputs, outputs), *(Unit(outputs) for _ in range(depth - 1)))


class ShuffleNetV2(nn.Module):
    """A stem, three stages of units, a 1x1 convolution, an average over the map and scores.

    Args:
        maps: of each stage.
        last: maps of the 1x1 convolution behind them.
        num_classes: scores per image.
    """

    def __init__(self, maps: tuple[int, int, int], last: int, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 24, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNormAct2d(24),
        )
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stage2 = _stage(24, maps[0], depth=4)
        self.stage3 = _stage(maps[0], maps[1], depth=8)
        self.stage4 = _stage(maps[1], maps[2], depth=4)
        self.conv5 = nn.Sequential(*_pointwise(maps[2], last))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224]
        x = self.conv1(x)  # [N, 24, 112, 112]
        x = self.maxpool(x)  # [N, 24, 56, 56]
        x = self.stage2(x)  # [N, 48 to 244, 28, 28]
        x = self.stage3(x)  # [N, 96 to 488, 14, 14]
        x = self.stage4(x)  # [N, 192 to 976, 7, 7]
        x = self.conv5(x)  # [N, 1024 or 2048, 7, 7]
        return self.fc(self.avgpool(x).flatten(1))  # [N, num_classes]


def shufflenet_v2_x0_5(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNet V2 of half the width."""
    return ShuffleNetV2((48, 96, 192), 1024, num_classes)


def shufflenet_v2_x1_0(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNet V2."""
    return ShuffleNetV2((116, 232, 464), 1024, num_classes)


def shufflenet_v2_x1_5(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNet V2 of one and a half times the width."""
    return ShuffleNetV2((176, 352, 704), 1024, num_classes)


def shufflenet_v2_x2_0(num_classes: int = 1000) -> ShuffleNetV2:
    """ShuffleNet V2 of twice the width."""
    return ShuffleNetV2((244, 488, 976), 2048, num_classes)


_MA = (
    "Ma, Zhang, Zheng, Sun 2018, ShuffleNet V2: Practical Guidelines for Efficient CNN "
    "Architecture Design"
)


MODELS = (
    as_torchvision(
        shufflenet_v2_x0_5, "ShuffleNet V2 of width 0.5", _MA, 1_366_792, "0.040", 60.552
    ),
    as_torchvision(
        shufflenet_v2_x1_0, "ShuffleNet V2 of width 1.0", _MA, 2_278_604, "0.145", 69.362
    ),
    as_torchvision(
        shufflenet_v2_x1_5, "ShuffleNet V2 of width 1.5", _MA, 3_503_624, "0.296", 72.996
    ),
    as_torchvision(
        shufflenet_v2_x2_0, "ShuffleNet V2 of width 2.0", _MA, 7_393_996, "0.583", 76.23
    ),
)
