"""FCN: Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", 2015.

VGG of 16 layers whose fully connected layers are convolutions, so that it gives scores at every
place of an image of any size; transposed convolutions that begin as bilinear interpolation bring
these back to the image's size. FCN-32s does so in one step, FCN-16s and FCN-8s add the scores of
the finer maps behind pools 4 and 3 on the way. Layers, names and offsets are those of the authors'
Caffe models, but for VGG's convolutions, which have torchvision's.
"""

from collections.abc import Mapping

import numpy as np
import torch

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model
from pydl.models.vgg import VGG16, features


def bilinear(maps: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that interpolates: ``factor`` times the size, each map alone.

    Away from the border it is ``interpolate(mode="bilinear", align_corners=False)``, shifted by
    (factor - factor % 2) / 2 pixels, which no padding takes off here; at the border it sees zeros.
    """
    size = 2 * factor - factor % 2
    layer = nn.ConvTranspose2d(maps, maps, size, stride=factor, bias=False)
    slope = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    kernels = np.eye(maps)[:, :, None, None] * slope[:, None] * slope
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernels))
    return layer


def convolutional(layer: nn.Linear, side: int) -> nn.Conv2d:
    """A fully connected layer over maps of ``side`` x ``side`` pixels as a convolution, with the
    same numbers as weights: it gives what the layer would for the window at each place."""
    maps = layer.in_features // side**2
    made = nn.Conv2d(maps, layer.out_features, side)
    with torch.no_grad():
        made.weight.copy_(layer.weight.view_as(made.weight))
        if made.bias is not None:
            made.bias.copy_(layer.bias)
    return made


class FCN(nn.Module):
    """From images (N, 3, H, W) of any size to scores (N, num_classes, H, W).

    Args:
        stride: 32, 16 or 8: pixels between the finest scores.
        num_classes: scores per pixel.
        stages: maps of the convolutions before each of the five pools.
        hidden: maps of the two convolutions that were fully connected layers.

    Raises:
        ValueError: there is no FCN of that stride.
    """

    def __init__(
        self,
        stride: int,
        num_classes: int = 21,
        *,
        stages: tuple[tuple[int, ...], ...] = VGG16,
        hidden: int = 4096,
    ) -> None:
        if stride not in (8, 16, 32):
            raise ValueError(f"stride must be 8, 16 or 32, got {stride}")
        super().__init__()
        self.features = features(stages, norm=False)
        first, *others = self.features
        # So much that the smallest image has a window of 7 x 7 behind the last pool.
        first.padding = (100, 100)  # type: ignore[assignment]
        for layer in others:
            if isinstance(layer, torch.nn.MaxPool2d):
                layer.ceil_mode = True
        self.fc6 = nn.Conv2d(stages[-1][-1], hidden, kernel_size=7)
        self.fc7 = nn.Conv2d(hidden, hidden, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout()
        scores = [nn.Conv2d(hidden, num_classes, kernel_size=1)]
        self.score_fr = scores[0]
        if stride < 32:
            self.upscore2 = bilinear(num_classes, 2)
            self.score_pool4 = nn.Conv2d(stages[3][-1], num_classes, kernel_size=1)
            scores.append(self.score_pool4)
        if stride < 16:
            self.upscore_pool4 = bilinear(num_classes, 2)
            self.score_pool3 = nn.Conv2d(stages[2][-1], num_classes, kernel_size=1)
            scores.append(self.score_pool3)
        self.upscore = bilinear(num_classes, stride)
        self.upscore.requires_grad_(False)  # section 4.3: the last one stays as it is
        he(self)
        for layer in scores[1:]:  # it begins as FCN-32s
            nn.init.zeros_(layer.weight)
        # How far each map of scores reaches over what it is added to, and over the image.
        self.offsets = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}[stride]

    def take(self, state: Mapping[str, torch.Tensor]) -> None:
        """The weights of a VGG of 16 layers, by its ``state_dict``: where it was fully connected,
        as :func:`convolutional`. Scores begin anew."""
        own = self.state_dict()
        for name in own:
            if name.startswith("features."):
                own[name] = state[name]
        for number, layer in ((0, "fc6"), (3, "fc7")):
            own[f"{layer}.weight"] = state[f"classifier.{number}.weight"].view_as(
                own[f"{layer}.weight"]
            )
            own[f"{layer}.bias"] = state[f"classifier.{number}.bias"]
        self.load_state_dict(own)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, H, W]
        height, width = x.shape[2:]
        pools = []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, torch.nn.MaxPool2d):
                pools.append(x)  # [N, 64, (H + 198) / 2, ...] to [N, 512, (H + 198) / 32, ...]
        x = self.dropout(self.relu(self.fc6(x)))  # [N, 4096, (H + 198) / 32 - 6, ...]
        x = self.dropout(self.relu(self.fc7(x)))
        x = self.score_fr(x)  # [N, num_classes, ...]
        *between, last = self.offsets
        if between:
            x = self._added(self.upscore2(x), self.score_pool4(pools[3]), between[0])
        if len(between) == 2:
            x = self._added(self.upscore_pool4(x), self.score_pool3(pools[2]), between[1])
        x = self.upscore(x)  # [N, num_classes, H + 2 * last or more, ...]
        return x[:, :, last : last + height, last : last + width]  # [N, num_classes, H, W]

    @staticmethod
    def _added(x: torch.Tensor, finer: torch.Tensor, offset: int) -> torch.Tensor:
        height, width = x.shape[2:]
        return x + finer[:, :, offset : offset + height, offset : offset + width]


def fcn32s(num_classes: int = 21) -> FCN:
    """FCN-32s."""
    return FCN(32, num_classes)


def fcn16s(num_classes: int = 21) -> FCN:
    """FCN-16s."""
    return FCN(16, num_classes)


def fcn8s(num_classes: int = 21) -> FCN:
    """FCN-8s."""
    return FCN(8, num_classes)


MODELS = tuple(
    Model(
        build.__name__,
        build,
        (3, 500, 500),
        f"FCN on VGG of 16 layers, scores {stride} pixels apart",
        "Long, Shelhamer, Darrell 2015, Fully Convolutional Networks for Semantic Segmentation",
        task="segmentation",
        small=(3, 32, 32),
        parameters=parameters,
    )
    for build, stride, parameters in (
        (fcn32s, 32, 136_152_917),
        (fcn16s, 16, 134_815_994),
        (fcn8s, 8, 134_489_759),
    )
)
