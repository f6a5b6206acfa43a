"""Inception v3: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture
for Computer Vision", 2015.

As torchvision builds it, whose ``state_dict`` loads.
"""

from typing import NamedTuple

import torch

from pydl import nn
from pydl.models.googlenet import ConvNormAct, rescale
from pydl.models.model import Model


class InceptionOutputs(NamedTuple):
    """What training gets: the scores, and those of the head behind the modules of 17x17."""

    logits: torch.Tensor
    aux_logits: torch.Tensor | None


class InceptionA(nn.Module):
    """On 35x35 maps: a 5x5 convolution, and two of 3x3 one after the other."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormAct(inputs, 64, 1)
        self.branch5x5_1 = ConvNormAct(inputs, 48, 1)
        self.branch5x5_2 = ConvNormAct(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvNormAct(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNormAct(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormAct(96, 96, 3, padding=1)
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvNormAct(inputs, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y5 = self.branch5x5_2(self.branch5x5_1(x))
        y3 = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), y5, y3, self.branch_pool(self.pool(x))], 1)


class InceptionB(nn.Module):
    """From 35x35 to 17x17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = ConvNormAct(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvNormAct(inputs, 64, 1)
        self.branch3x3dbl_2 = ConvNormAct(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvNormAct(96, 96, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), y, self.pool(x)], 1)


class InceptionC(nn.Module):
    """On 17x17 maps: 7x7 convolutions, each as one of 1x7 and one of 7x1."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormAct(inputs, 192, 1)
        self.branch7x7_1 = ConvNormAct(inputs, maps, 1)
        self.branch7x7_2 = ConvNormAct(maps, maps, (1, 7), padding=(0, 3))
        self.branch7x7_3 = ConvNormAct(maps, 192, (7, 1), padding=(3, 0))
        self.branch7x7dbl_1 = ConvNormAct(inputs, maps, 1)
        self.branch7x7dbl_2 = ConvNormAct(maps, maps, (7, 1), padding=(3, 0))
        self.branch7x7dbl_3 = ConvNormAct(maps, maps, (1, 7), padding=(0, 3))
        self.branch7x7dbl_4 = ConvNormAct(maps, maps, (7, 1), padding=(3, 0))
        self.branch7x7dbl_5 = ConvNormAct(maps, 192, (1, 7), padding=(0, 3))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvNormAct(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        z = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        z = self.branch7x7dbl_5(self.branch7x7dbl_4(z))
        return torch.cat([self.branch1x1(x), y, z, self.branch_pool(self.pool(x))], 1)


class InceptionD(nn.Module):
    """From 17x17 to 8x8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNormAct(inputs, 192, 1)
        self.branch3x3_2 = ConvNormAct(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvNormAct(inputs, 192, 1)
        self.branch7x7x3_2 = ConvNormAct(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = ConvNormAct(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = ConvNormAct(192, 192, 3, stride=2)
        self.pool = nn.MaxPool2d(3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch3x3_2(self.branch3x3_1(x))
        z = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([y, self.branch7x7x3_4(z), self.pool(x)], 1)


class InceptionE(nn.Module):
    """On 8x8 maps: convolutions of 1x3 and 3x1 side by side."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1x1 = ConvNormAct(inputs, 320, 1)
        self.branch3x3_1 = ConvNormAct(inputs, 384, 1)
        self.branch3x3_2a = ConvNormAct(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = ConvNormAct(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = ConvNormAct(inputs, 448, 1)
        self.branch3x3dbl_2 = ConvNormAct(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = ConvNormAct(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = ConvNormAct(384, 384, (3, 1), padding=(1, 0))
        self.pool = nn.AvgPool2d(3, stride=1, padding=1)
        self.branch_pool = ConvNormAct(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch3x3_1(x)
        ys = [self.branch3x3_2a(y), self.branch3x3_2b(y)]
        z = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        zs = [self.branch3x3dbl_3a(z), self.branch3x3dbl_3b(z)]
        return torch.cat([self.branch1x1(x), *ys, *zs, self.branch_pool(self.pool(x))], 1)


class AuxiliaryHead(nn.Module):
    """Scores from the middle of the network."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3)
        self.conv0 = ConvNormAct(inputs, 128, 1)
        self.conv1 = ConvNormAct(128, 768, 5)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 768, 17, 17]
        x = self.conv0(self.pool(x))  # [N, 128, 5, 5]
        x = self.avgpool(self.conv1(x))  # [N, 768, 1, 1]
        return self.fc(x.flatten(1))  # [N, num_classes]


class Inception3(nn.Module):
    """A stem, eleven inception modules on ever smaller maps, an average over the map and scores.

    Args:
        num_classes: scores per image.
        aux_logits: whether there is a second head, which runs in training and needs images of 299
            pixels there; the output is then an :class:`InceptionOutputs`.
        transform_input: whether images are rescaled to -1 to 1 first, as torchvision's trained
            weights need it.
    """

    def __init__(
        self, num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False
    ) -> None:
        super().__init__()
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = ConvNormAct(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvNormAct(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvNormAct(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, stride=2)
        self.Conv2d_3b_1x1 = ConvNormAct(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvNormAct(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, stride=2)
        self.Mixed_5b = InceptionA(192, pooled=32)
        self.Mixed_5c = InceptionA(256, pooled=64)
        self.Mixed_5d = InceptionA(288, pooled=64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, maps=128)
        self.Mixed_6c = InceptionC(768, maps=160)
        self.Mixed_6d = InceptionC(768, maps=160)
        self.Mixed_6e = InceptionC(768, maps=192)
        self.AuxLogits = AuxiliaryHead(768, num_classes) if aux_logits else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.1)
        if self.AuxLogits is not None:
            nn.init.trunc_normal_(self.AuxLogits.fc.weight, std=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor | InceptionOutputs:  # [N, 3, 299, 299]
        x = rescale(x) if self.transform_input else x
        x = self.Conv2d_1a_3x3(x)  # [N, 32, 149, 149]
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(x))  # [N, 64, 147, 147]
        x = self.maxpool1(x)  # [N, 64, 73, 73]
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # [N, 192, 71, 71]
        x = self.maxpool2(x)  # [N, 192, 35, 35]
        x = self.Mixed_5b(x)  # [N, 256, 35, 35]
        x = self.Mixed_5d(self.Mixed_5c(x))  # [N, 288, 35, 35]
        x = self.Mixed_6a(x)  # [N, 768, 17, 17]
        x = self.Mixed_6c(self.Mixed_6b(x))  # [N, 768, 17, 17]
        x = self.Mixed_6e(self.Mixed_6d(x))  # [N, 768, 17, 17]
        aux = self.AuxLogits(x) if self.training and self.AuxLogits is not None else None
        x = self.Mixed_7a(x)  # [N, 1280, 8, 8]
        x = self.Mixed_7c(self.Mixed_7b(x))  # [N, 2048, 8, 8]
        scores = self.fc(self.dropout(self.avgpool(x)).flatten(1))  # [N, num_classes]
        return scores if aux is None else InceptionOutputs(scores, aux)


def inception_v3(
    num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False
) -> Inception3:
    """Inception v3."""
    return Inception3(num_classes, aux_logits, transform_input)


MODELS = (
    Model(
        "inception_v3",
        inception_v3,
        (3, 299, 299),
        "Inception v3, its auxiliary head counted",
        "Szegedy et al. 2015, Rethinking the Inception Architecture for Computer Vision",
        small=(3, 96, 96),
        parameters=27_161_264,
        giga_multiply_adds="5.713",
        top1=77.294,
        golden="torchvision",
    ),
)
