"""The context module: Yu, Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", 2016.

3x3 convolutions whose dilation doubles from layer to layer, so that what a unit sees grows
exponentially while maps keep their size and every pixel in reach is seen: laid on the scores of a
segmentation network, it lets each pixel see what is around it. At first it passes on unchanged
what is not negative.
"""

import numpy as np
import torch

from pydl import nn
from pydl.models.model import Model

DILATIONS = (1, 1, 2, 4, 8, 16, 1)  # table 1, before the last layer, which is 1x1
_BASIC = (1,) * 8
_LARGE = (2, 2, 4, 8, 16, 32, 32, 1)


class Context(nn.Sequential):
    """From maps (N, maps, H, W), such as scores, to as many of the same size.

    Args:
        maps: how many.
        widths: maps of each layer, as multiples of ``maps``.
    """

    def __init__(self, maps: int, widths: tuple[int, ...] = _BASIC) -> None:
        layers: list[nn.Module] = []
        inputs = maps
        for width, dilation in zip(widths, (*DILATIONS, 0), strict=True):
            outputs = width * maps
            layers += [_identity(inputs, outputs, maps, dilation), nn.ReLU(inplace=True)]
            inputs = outputs
        super().__init__(*layers[:-1])


def _identity(inputs: int, outputs: int, maps: int, dilation: int) -> nn.Conv2d:
    """A convolution that takes ``maps`` groups of maps to as many, each to itself (equation 5);
    where the groups have several maps, with a little noise, that they may become different.
    Without a dilation it is 1x1."""
    kernel = 3 if dilation else 1
    layer = nn.Conv2d(inputs, outputs, kernel, padding=dilation, dilation=max(dilation, 1))
    same = (np.arange(outputs)[:, None] * maps // outputs) == (np.arange(inputs) * maps // inputs)
    kernels = np.zeros(layer.weight.shape, np.float32)
    kernels[:, :, kernel // 2, kernel // 2] = same * (maps / outputs)
    noise = 0.0 if inputs == outputs == maps else 0.01 * maps / outputs
    with torch.no_grad():
        layer.weight.normal_(std=noise).add_(torch.from_numpy(kernels))
        layer.get_parameter("bias").zero_()
    return layer


def context(num_classes: int = 21) -> Context:
    """The basic form, on scores of so many classes."""
    return Context(num_classes)


def context_large(num_classes: int = 21) -> Context:
    """The large form, with up to 32 times as many maps."""
    return Context(num_classes, _LARGE)


_YU = "Yu, Koltun 2016, Multi-Scale Context Aggregation by Dilated Convolutions"

MODELS = (
    Model(
        "context",
        context,
        (21, 64, 64),
        "dilated context module, on scores of 21 classes",
        _YU,
        task="segmentation",
        parameters=28_392,
    ),
    Model(
        "context-large",
        context_large,
        (21, 64, 64),
        "dilated context module with more maps",
        _YU,
        task="segmentation",
        small=(21, 16, 16),
        parameters=6_803_139,
    ),
)
