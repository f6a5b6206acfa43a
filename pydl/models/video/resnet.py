"""Residual networks for clips: Tran, Wang, Torresani, Ray, LeCun, Paluri, "A Closer Look at
Spatiotemporal Convolutions for Action Recognition", 2018.

As torchvision builds them, whose ``state_dict`` loads. R3D convolves space and time at once in all
stages, MC3 in the first only, R(2+1)D in each one after the other, with batch normalisation and
ReLU between. Batch normalisation, the shortcut's addition and ReLU are one operator.
"""

from collections.abc import Callable

import torch

from pydl import nn
from pydl.models.model import Model

# A 3x3 or 3x3x3 convolution, from its inputs, outputs and stride. Those of R(2+1)D also take how
# many maps there are between space and time.
Convolution = Callable[[int, int, int, int], nn.Module]


def _together(inputs: int, outputs: int, between: int, stride: int) -> nn.Module:
    """Space and time at once."""
    return nn.Conv3d(inputs, outputs, 3, stride, padding=1, bias=False)


def _space(inputs: int, outputs: int, between: int, stride: int) -> nn.Module:
    """Each frame by itself."""
    window, steps = (1, 3, 3), (1, stride, stride)
    return nn.Conv3d(inputs, outputs, window, steps, padding=(0, 1, 1), bias=False)


def _apart(inputs: int, outputs: int, between: int, stride: int) -> nn.Module:
    """Space, then time."""
    time = nn.Conv3d(between, outputs, (3, 1, 1), (stride, 1, 1), padding=(1, 0, 0), bias=False)
    # With ReLU in the norm its place in the row stays, so that the names do.
    norm = nn.BatchNormAct3d(between), nn.Identity()
    return nn.Sequential(_space(inputs, between, 0, stride), *norm, time)


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, convolution: Convolution, inputs: int, maps: int, stride: int) -> None:
        super().__init__()
        # As many as give R(2+1)D the weights of R3D; in the second convolution too, where it would
        # take others.
        between = 27 * inputs * maps // (9 * inputs + 3 * maps)
        self.conv1 = nn.Sequential(
            convolution(inputs, maps, between, stride), nn.BatchNormAct3d(maps)
        )
        self.conv2 = nn.Sequential(convolution(maps, maps, between, 1), nn.BatchNormAct3d(maps))
        self.downsample: nn.Module | None = None
        if stride > 1 or inputs != maps:
            steps = (1 if convolution is _space else stride, stride, stride)
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, maps, 1, steps, bias=False), nn.BatchNorm3d(maps)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        convolution, norm = self.conv2
        return norm(convolution(self.conv1(x)), shortcut)


class VideoResNet(nn.Module):
    """A stem, four stages of two blocks, an average over space and time, and scores.

    Args:
        stem: from three colours to 64 maps of half the size.
        convolutions: of the first stage, and of the other three.
        num_classes: scores per clip.
    """

    def __init__(
        self,
        stem: nn.Sequential,
        convolutions: tuple[Convolution, Convolution],
        num_classes: int = 400,
    ) -> None:
        super().__init__()
        first, later = convolutions
        self.stem = stem
        self.layer1 = nn.Sequential(Block(first, 64, 64, 1), Block(first, 64, 64, 1))
        self.layer2 = nn.Sequential(Block(later, 64, 128, 2), Block(later, 128, 128, 1))
        self.layer3 = nn.Sequential(Block(later, 128, 256, 2), Block(later, 256, 256, 1))
        self.layer4 = nn.Sequential(Block(later, 256, 512, 2), Block(later, 512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(512, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    # MC3 keeps all frames to the end.
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 3, 16, 112, 112]
        x = self.stem(x)  # [N, 64, 16, 56, 56]
        x = self.layer1(x)  # [N, 64, 16, 56, 56]
        x = self.layer2(x)  # [N, 128, 8, 28, 28]
        x = self.layer3(x)  # [N, 256, 4, 14, 14]
        x = self.layer4(x)  # [N, 512, 2, 7, 7]
        return self.fc(self.avgpool(x).flatten(1))  # [N, num_classes]


def _stem() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), padding=(1, 3, 3), bias=False),
        nn.BatchNormAct3d(64),
    )


def _stem_apart() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(3, 45, (1, 7, 7), (1, 2, 2), padding=(0, 3, 3), bias=False),
        nn.BatchNormAct3d(45),
        nn.Identity(),  # ReLU's place, as in `_apart`
        nn.Conv3d(45, 64, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.BatchNormAct3d(64),
    )


def r3d_18(num_classes: int = 400) -> VideoResNet:
    """R3D of 18 layers."""
    return VideoResNet(_stem(), (_together, _together), num_classes)


def mc3_18(num_classes: int = 400) -> VideoResNet:
    """MC3 of 18 layers."""
    return VideoResNet(_stem(), (_together, _space), num_classes)


def r2plus1d_18(num_classes: int = 400) -> VideoResNet:
    """R(2+1)D of 18 layers."""
    return VideoResNet(_stem_apart(), (_apart, _apart), num_classes)


def _row(build: Callable[[], nn.Module], about: str, parameters: int, giga: str) -> Model:
    return Model(
        build.__name__,
        build,
        (3, 16, 112, 112),
        about,
        "Tran, Wang, Torresani, Ray, LeCun, Paluri 2018, A Closer Look at Spatiotemporal "
        "Convolutions for Action Recognition",
        small=(3, 3, 20, 20),
        parameters=parameters,
        giga_multiply_adds=giga,
        golden="torchvision",
    )


MODELS = (
    _row(r3d_18, "ResNet of 18 layers whose convolutions see time", 33_371_472, "40.697"),
    _row(mc3_18, "the same, of which the first stage alone sees time", 11_695_440, "43.343"),
    _row(r2plus1d_18, "the same, space and time one after the other", 31_505_325, "40.519"),
)
