"""DeepLab v3: Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017.

As torchvision builds it, whose ``state_dict`` loads: on ResNet with an output stride of 8, the
pyramid's rates those of that stride (12, 24, 36; the paper's 6, 12, 18 are for a stride of 16).
"""

from collections.abc import Sequence

import torch

from pydl import nn
from pydl.models.model import as_torchvision_segmentation
from pydl.models.resnet import resnet50, resnet101
from pydl.models.segmentation.fcn_resnet import Segmentation, on_resnet


def _convolution(inputs: int, maps: int, kernel: int = 1, rate: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, batch normalisation and ReLU."""
    padding = rate * (kernel // 2)
    return [
        nn.Conv2d(inputs, maps, kernel, padding=padding, dilation=rate, bias=False),
        nn.BatchNormAct2d(maps),
    ]


class _WholeImage(nn.Sequential):
    """What the average over the map says, the same at every place."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *_convolution(inputs, maps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: a 1x1 convolution, dilated 3x3 convolutions and the average
    over the map side by side, brought together by another 1x1 convolution."""

    def __init__(self, inputs: int, rates: Sequence[int], maps: int = 256) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Sequential(*_convolution(inputs, maps)),
                *(nn.Sequential(*_convolution(inputs, maps, 3, rate)) for rate in rates),
                _WholeImage(inputs, maps),
            ]
        )
        self.project = nn.Sequential(
            *_convolution(len(self.convs) * maps, maps),
            nn.Dropout(0.5),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 2048, H / 8, W / 8]
        x = torch.cat([convolution(x) for convolution in self.convs], 1)  # [N, 1280, ...]
        return self.project(x)  # [N, 256, H / 8, W / 8]


class DeepLabHead(nn.Sequential):
    """The pyramid, a 3x3 convolution and scores."""

    def __init__(self, inputs: int, num_classes: int, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__(
            ASPP(inputs, rates),
            *_convolution(256, 256, 3),
            nn.Identity(),  # torchvision's ReLU, which is in the norm
            nn.Conv2d(256, num_classes, kernel_size=1),
        )


def deeplabv3_resnet50(num_classes: int = 21, aux_loss: bool = True) -> Segmentation:
    """DeepLab v3 on ResNet-50."""
    return on_resnet(resnet50(), DeepLabHead, num_classes, aux_loss)


def deeplabv3_resnet101(num_classes: int = 21, aux_loss: bool = True) -> Segmentation:
    """DeepLab v3 on ResNet-101."""
    return on_resnet(resnet101(), DeepLabHead, num_classes, aux_loss)


_CHEN = (
    "Chen, Papandreou, Schroff, Adam 2017, Rethinking Atrous Convolution for Semantic Image "
    "Segmentation"
)

MODELS = (
    as_torchvision_segmentation(
        deeplabv3_resnet50,
        "DeepLab v3 on ResNet-50, with two heads",
        _CHEN,
        42_004_074,
        "178.722",
        66.4,
    ),
    as_torchvision_segmentation(
        deeplabv3_resnet101,
        "DeepLab v3 on ResNet-101, with two heads",
        _CHEN,
        60_996_202,
        "258.743",
        67.4,
    ),
)
