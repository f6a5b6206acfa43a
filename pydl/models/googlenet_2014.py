"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", 2014, as published.

With response normalisation in the stem, biases and 5x5 convolutions, before there was batch
normalisation; what the paper leaves open is as in Caffe's model of it. googlenet.py has
torchvision's.
"""

import torch

from pydl import nn
from pydl.models.googlenet import MAPS, GoogLeNetOutputs
from pydl.models.model import Model


class NaiveInception(nn.Module):
    """The module that the paper begins with (figure 2a): on all maps, the pool's kept as they are.

    Of 192 maps the first module makes 416 in this way, with 387,072 weights, and every module after
    it would make more; :class:`Inception` makes 256, with 163,328.
    """

    def __init__(self, inputs: int, m1: int, m3: int, m5: int) -> None:
        super().__init__()
        self.branch1 = nn.ConvBiasAct2d(inputs, m1, 1)
        self.branch2 = nn.ConvBiasAct2d(inputs, m3, 3, padding=1)
        self.branch3 = nn.ConvBiasAct2d(inputs, m5, 5, padding=2)
        self.branch4 = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Inception(nn.Module):
    """The module with dimension reductions (figure 2b): 1x1 convolutions before the larger ones,
    and behind the pool."""

    def __init__(
        self, inputs: int, m1: int, reduce3: int, m3: int, reduce5: int, m5: int, pooled: int
    ) -> None:
        super().__init__()
        self.branch1 = nn.ConvBiasAct2d(inputs, m1, 1)
        self.branch2 = nn.Sequential(
            nn.ConvBiasAct2d(inputs, reduce3, 1), nn.ConvBiasAct2d(reduce3, m3, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            nn.ConvBiasAct2d(inputs, reduce5, 1), nn.ConvBiasAct2d(reduce5, m5, 5, padding=2)
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), nn.ConvBiasAct2d(inputs, pooled, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class AuxiliaryHead(nn.Module):
    """Scores from the middle of the network, whose loss sends gradients into its lower half."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride=3, ceil_mode=True)
        self.conv = nn.ConvBiasAct2d(inputs, 128, 1)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 512 or 528, 14, 14]
        x = self.conv(self.pool(x))  # [N, 128, 4, 4]
        x = self.relu(self.fc1(x.flatten(1)))  # [N, 1024]
        return self.fc2(self.dropout(x))  # [N, num_classes]


def _lrn() -> nn.LocalResponseNorm:
    """The paper names no numbers; these are Caffe's, which divides alpha by the size."""
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


class GoogLeNet2014(nn.Module):
    """A stem, nine inception modules, an average over the map and scores.

    Args:
        num_classes: scores per image.
        aux_logits: whether there are two heads more, which run in training and need images of 224
            pixels there; the output is then a
            :class:`~pydl.models.googlenet.GoogLeNetOutputs`.
    """

    def __init__(self, num_classes: int = 1000, aux_logits: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.ConvBiasAct2d(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.lrn1 = _lrn()
        self.conv2 = nn.ConvBiasAct2d(64, 64, 1)
        self.conv3 = nn.ConvBiasAct2d(64, 192, 3, padding=1)
        self.lrn2 = _lrn()
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(192, *MAPS["3a"])
        self.inception3b = Inception(256, *MAPS["3b"])
        self.maxpool3 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception4a = Inception(480, *MAPS["4a"])
        self.inception4b = Inception(512, *MAPS["4b"])
        self.inception4c = Inception(512, *MAPS["4c"])
        self.inception4d = Inception(512, *MAPS["4d"])
        self.inception4e = Inception(528, *MAPS["4e"])
        self.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception5a = Inception(832, *MAPS["5a"])
        self.inception5b = Inception(832, *MAPS["5b"])
        self.aux1 = AuxiliaryHead(512, num_classes) if aux_logits else None
        self.aux2 = AuxiliaryHead(528, num_classes) if aux_logits else None
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(1024, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                # Caffe's "xavier": the deviation is 1 / sqrt(inputs of a unit).
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
                if layer.bias is not None:
                    nn.init.constant_(layer.bias, 0.2)  # so that the ReLUs begin open
        for head in (self.fc, *(aux.fc2 for aux in (self.aux1, self.aux2) if aux is not None)):
            nn.init.zeros_(head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor | GoogLeNetOutputs:  # [N, 3, 224, 224]
        x = self.conv1(x)  # [N, 64, 112, 112]
        x = self.lrn1(self.maxpool1(x))  # [N, 64, 56, 56]
        x = self.conv3(self.conv2(x))  # [N, 192, 56, 56]
        x = self.maxpool2(self.lrn2(x))  # [N, 192, 28, 28]
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


def googlenet_2014(num_classes: int = 1000, aux_logits: bool = False) -> GoogLeNet2014:
    """GoogLeNet as published."""
    return GoogLeNet2014(num_classes, aux_logits)


MODELS = (
    Model(
        "googlenet_2014",
        googlenet_2014,
        (3, 224, 224),
        "GoogLeNet as published, with LRN and 5x5 convolutions, without batch normalisation",
        "Szegedy et al. 2014, Going Deeper with Convolutions",
        small=(3, 64, 64),
        parameters=6_998_552,
        golden="onnx",
    ),
)
