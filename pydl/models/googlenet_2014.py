"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions", 2014, as published.

With response normalisation in the stem, biases and 5x5 convolutions, before there was batch
normalisation; what the paper leaves open is as in Caffe's model of it. googlenet.py has
torchvision's.
"""

from functools import partial

import torch

from pydl import nn
from pydl.models.googlenet import (
    AuxiliaryHead,
    Branches,
    GoogLeNetOutputs,
    Inception,
    Modules,
)
from pydl.models.model import Model


class NaiveInception(Branches):
    """The module that the paper begins with (figure 2a): on all maps, the pool's kept as they are.

    Of 192 maps the first module makes 416 in this way, with 387,072 weights, and every module after
    it would make more; :data:`INCEPTION` makes 256, with 163,328.
    """

    def __init__(self, inputs: int, m1: int, m3: int, m5: int) -> None:
        super().__init__()
        self.branch1 = nn.ConvBiasAct2d(inputs, m1, 1)
        self.branch2 = nn.ConvBiasAct2d(inputs, m3, 3, padding=1)
        self.branch3 = nn.ConvBiasAct2d(inputs, m5, 5, padding=2)
        self.branch4 = nn.MaxPool2d(3, stride=1, padding=1)


# The module with dimension reductions (figure 2b): 1x1 convolutions before the larger ones, and
# behind the pool.
INCEPTION = partial(Inception, conv=nn.ConvBiasAct2d, kernel=5)


def _lrn() -> nn.LocalResponseNorm:
    """The paper names no numbers; these are Caffe's, which divides alpha by the size."""
    return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)


class GoogLeNet2014(Modules):
    """A stem, nine inception modules, an average over the map and scores.

    Args:
        num_classes: scores per image.
        aux_logits: whether there are two heads more, which run in training and need images of 224
            pixels there; the output is then a
            :class:`~pydl.models.googlenet.GoogLeNetOutputs`.
    """

    def __init__(self, num_classes: int = 1000, aux_logits: bool = False) -> None:
        super().__init__()

        def head(inputs: int) -> AuxiliaryHead:
            pool = nn.AvgPool2d(5, stride=3, ceil_mode=True)
            return AuxiliaryHead(pool, nn.ConvBiasAct2d(inputs, 128, 1), num_classes)

        self.conv1 = nn.ConvBiasAct2d(3, 64, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.lrn1 = _lrn()
        self.conv2 = nn.ConvBiasAct2d(64, 64, 1)
        self.conv3 = nn.ConvBiasAct2d(64, 192, 3, padding=1)
        self.lrn2 = _lrn()
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self._add_modules(INCEPTION, last_pool=3)
        self._add_scores(head if aux_logits else None, 0.4, num_classes)
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
        return self._scores(x)  # [N, num_classes]


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
