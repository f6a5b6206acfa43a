"""ResNet: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015.

As torchvision builds them, whose ``state_dict`` loads: where a bottleneck halves the map, its 3x3
convolution does ("ResNet v1.5"), not the 1x1 before it as in the paper. Batch normalisation, the
shortcut's addition and ReLU are one operator.
"""

import torch

from pydl import nn
from pydl.models.model import as_torchvision


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    """What makes the input of a block fit its output; None where it does already."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
        nn.BatchNorm2d(outputs),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1  # output maps per `maps`

    def __init__(self, inputs: int, maps: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, maps, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNormAct2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNormAct2d(maps)
        self.downsample = _shortcut(inputs, maps, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(y), shortcut)


class Bottleneck(nn.Module):
    """1x1 to fewer maps, 3x3, 1x1 to four times as many, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, maps: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * maps
        self.conv1 = nn.Conv2d(inputs, maps, 1, bias=False)
        self.bn1 = nn.BatchNormAct2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNormAct2d(maps)
        self.conv3 = nn.Conv2d(maps, outputs, 1, bias=False)
        self.bn3 = nn.BatchNormAct2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn1(self.conv1(x))
        y = self.bn2(self.conv2(y))
        return self.bn3(self.conv3(y), shortcut)


class ResNet(nn.Module):
    """A stem, four stages of blocks, an average over the map and scores.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        depths: blocks of each stage.
        num_classes: scores per image.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNormAct2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self._inputs = 64
        self.layer1 = self._stage(block, 64, depths[0], stride=1)
        self.layer2 = self._stage(block, 128, depths[1], stride=2)
        self.layer3 = self._stage(block, 256, depths[2], stride=2)
        self.layer4 = self._stage(block, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], maps: int, depth: int, stride: int
    ) -> nn.Sequential:
        blocks = []
        for i in range(depth):
            blocks.append(block(self._inputs, maps, stride if i == 0 else 1))
            self._inputs = maps * block.expansion
        return nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 224, 224]
        x = self.bn1(self.conv1(x))  # [N, 64, 112, 112]
        x = self.maxpool(x)  # [N, 64, 56, 56]
        x = self.layer1(x)  # [N, 64 or 256, 56, 56]
        x = self.layer2(x)  # [N, 128 or 512, 28, 28]
        x = self.layer3(x)  # [N, 256 or 1024, 14, 14]
        x = self.layer4(x)  # [N, 512 or 2048, 7, 7]
        return self.fc(self.avgpool(x).flatten(1))  # [N, num_classes]


def resnet18(num_classes: int = 1000) -> ResNet:
    """ResNet-18."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 1000) -> ResNet:
    """ResNet-34."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes: int = 1000) -> ResNet:
    """ResNet-50."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)


def resnet101(num_classes: int = 1000) -> ResNet:
    """ResNet-101."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes)


def resnet152(num_classes: int = 1000) -> ResNet:
    """ResNet-152."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes)


_HE = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition"


MODELS = (
    as_torchvision(
        resnet18, "ResNet of 18 layers, in basic blocks", _HE, 11_689_512, "1.814", 69.758
    ),
    as_torchvision(
        resnet34, "ResNet of 34 layers, in basic blocks", _HE, 21_797_672, "3.664", 73.314
    ),
    as_torchvision(
        resnet50, "ResNet of 50 layers, in bottlenecks", _HE, 25_557_032, "4.089", 76.13
    ),
    as_torchvision(
        resnet101, "ResNet of 101 layers, in bottlenecks", _HE, 44_549_160, "7.801", 77.374
    ),
    as_torchvision(
        resnet152, "ResNet of 152 layers, in bottlenecks", _HE, 60_192_808, "11.514", 78.312
    ),
)
