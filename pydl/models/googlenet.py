"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", 2014.

As torchvision builds it, whose ``state_dict`` loads: batch normalisation in place of response
normalisation, and 3x3 convolutions where the paper has 5x5. googlenet_2014.py has the paper's.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch

from pydl import nn
from pydl.models.model import Model

# The paper's table 1: maps of each module's 1x1; of its 3x3, reduced and in full; of its 5x5,
# reduced and in full; of the projection behind its pool.
MAPS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class GoogLeNetOutputs(NamedTuple):
    """What training gets: the scores, and those of the heads behind modules 4d and 4a."""

    logits: torch.Tensor
    aux_logits2: torch.Tensor | None
    aux_logits1: torch.Tensor | None


def rescale(x: torch.Tensor) -> torch.Tensor:
    """Images with ImageNet's mean and deviation taken out, as ones from -1 to 1, on which the
    weights from TensorFlow were trained."""
    mean = x.new_tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    deviation = x.new_tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    return x * (deviation / 0.5) + (mean - 0.5) / 0.5


class ConvNormAct(nn.Module):
    """A convolution, batch normalisation and ReLU."""

    def __init__(
        self,
        inputs: int,
        maps: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, maps, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNormAct2d(maps, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class Branches(nn.Module):
    """Four ways side by side, whose maps come one behind the other."""

    branch1: nn.Module
    branch2: nn.Module
    branch3: nn.Module
    branch4: nn.Module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Inception(Branches):
    """Convolutions of several sizes side by side, the larger ones on fewer maps, and a pool.

    Args:
        inputs: maps that come in.
        m1, reduce3, m3, reduce5, m5, pooled: maps of each convolution, as in :data:`MAPS`.
        conv: makes a convolution with its activation.
        kernel: side of the largest window, in the paper 5.
    """

    def __init__(
        self,
        inputs: int,
        m1: int,
        reduce3: int,
        m3: int,
        reduce5: int,
        m5: int,
        pooled: int,
        *,
        conv: Callable[..., nn.Module] = ConvNormAct,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.branch1 = conv(inputs, m1, 1)
        self.branch2 = nn.Sequential(conv(inputs, reduce3, 1), conv(reduce3, m3, 3, padding=1))
        self.branch3 = nn.Sequential(
            conv(inputs, reduce5, 1), conv(reduce5, m5, kernel, padding=kernel // 2)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(inputs, pooled, 1))


class AuxiliaryHead(nn.Module):
    """Scores from the middle of the network, whose loss sends gradients into its lower half.

    Args:
        pool: to 4x4 pixels.
        conv: to 128 maps, with its activation.
        num_classes: scores per image.
    """

    def __init__(self, pool: nn.Module, conv: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv = conv
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 512 or 528, 14, 14]
        x = self.conv(self.pool(x))  # [N, 128, 4, 4]
        x = self.relu(self.fc1(x.flatten(1)))  # [N, 1024]
        return self.fc2(self.dropout(x))  # [N, num_classes]


class Modules(nn.Module):
    """What comes behind the stem of either form: nine inception modules, an average over the map
    and scores."""

    aux1: AuxiliaryHead | None
    aux2: AuxiliaryHead | None

    def _add_modules(self, inception: Callable[..., nn.Module], last_pool: int) -> None:
        """The modules, made by ``inception``; ``last_pool`` is the side of the last pool's
        window."""
        self.inception3a = inception(192, *MAPS["3a"])
        self.inception3b = inception(256, *MAPS["3b"])
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = inception(480, *MAPS["4a"])
        self.inception4b = inception(512, *MAPS["4b"])
        self.inception4c = inception(512, *MAPS["4c"])
        self.inception4d = inception(512, *MAPS["4d"])
        self.inception4e = inception(528, *MAPS["4e"])
        self.maxpool4 = nn.MaxPool2d(last_pool, stride=2, ceil_mode=True)
        self.inception5a = inception(832, *MAPS["5a"])
        self.inception5b = inception(832, *MAPS["5b"])

    def _add_scores(
        self, head: Callable[[int], AuxiliaryHead] | None, dropout: float, num_classes: int
    ) -> None:
        """The scores, and auxiliary heads, made by ``head`` from the maps that they see."""
        self.aux1 = None if head is None else head(512)
        self.aux2 = None if head is None else head(528)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, num_classes)

    def _scores(self, x: torch.Tensor) -> torch.Tensor | GoogLeNetOutputs:  # [N, 192, 28, 28]
        x = self.inception3a(x)  # [N, 256, 28, 28]
        x = self.inception3b(x)  # [N, 480, 28, 28]
        x = self.maxpool3(x)  # [N, 480, 14, 14]
        x = self.inception4a(x)  # [N, 512, 14, 14]
        aux1 = self.aux1(x) if self.training and self.aux1 is not None else None
        x = self.inception4b(x)  # [N, 512, 14, 14]
        x = self.inception4c(x)  # [N, 512, 14, 14]
        x = self.inception4d(x)  # [N, 528, 14, 14]
        aux2 = self.aux2(x) if self.training and self.aux2 is not None else None
        x = self.inception4e(x)  # [N, 832, 14, 14]
        x = self.maxpool4(x)  # [N, 832, 7, 7]
        x = self.inception5a(x)  # [N, 832, 7, 7]
        x = self.inception5b(x)  # [N, 1024, 7, 7]
        scores = self.fc(self.dropout(self.avgpool(x).flatten(1)))  # [N, num_classes]
        return scores if aux1 is None else GoogLeNetOutputs(scores, aux2, aux1)


class GoogLeNet(Modules):
    """A stem, nine inception modules, an average over the map and scores.

    Args:
        num_classes: scores per image.
        aux_logits: whether there are two heads more, which run in training; the output is then a
            :class:`GoogLeNetOutputs`.
        transform_input: whether images are :func:`rescaled <rescale>` first, as torchvision's
            trained weights need it.
    """

    def __init__(
        self, num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False
    ) -> None:
        super().__init__()

        def head(inputs: int) -> AuxiliaryHead:
            return AuxiliaryHead(nn.AdaptiveAvgPool2d(4), ConvNormAct(inputs, 128, 1), num_classes)

        self.transform_input = transform_input
        self.conv1 = ConvNormAct(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = ConvNormAct(64, 64, 1)
        self.conv3 = ConvNormAct(64, 192, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self._add_modules(Inception, last_pool=2)
        self._add_scores(head if aux_logits else None, 0.2, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor | GoogLeNetOutputs:  # [N, 3, 224, 224]
        x = rescale(x) if self.transform_input else x
        x = self.maxpool1(self.conv1(x))  # [N, 64, 56, 56]
        x = self.conv3(self.conv2(x))  # [N, 192, 56, 56]
        x = self.maxpool2(x)  # [N, 192, 28, 28]
        return self._scores(x)  # [N, num_classes]


def googlenet(
    num_classes: int = 1000, aux_logits: bool = True, transform_input: bool = False
) -> GoogLeNet:
    """GoogLeNet with batch normalisation."""
    return GoogLeNet(num_classes, aux_logits, transform_input)


MODELS = (
    Model(
        "googlenet",
        googlenet,
        (3, 224, 224),
        "GoogLeNet with batch normalisation, its two auxiliary heads counted",
        "Szegedy et al. 2014, Going Deeper with Convolutions",
        small=(3, 64, 64),
        parameters=13_004_888,  # 6,624,904 of them without the heads
        giga_multiply_adds="1.498",
        top1=69.778,
        golden="torchvision",
    ),
)
