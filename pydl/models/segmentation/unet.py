"""U-Net: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", 2015.

Four times two convolutions and a pool, and as often back up by a transposed convolution, beside
whose maps those of the same size on the way down are laid. As published the convolutions do not
pad: scores are those of the middle of the image, all seen whole, so that an image can be cut into
tiles without a trace. A padded form gives scores of every pixel.
"""

import torch

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model


class UNet(nn.Module):
    """From images (N, channels, H, W) to scores (N, num_classes, H', W').

    Args:
        channels: of the images.
        num_classes: scores per pixel.
        padded: whether H' and W' are H and W; without it they are ``2 * lost`` less.
        maps: of the first convolution; doubled behind each pool.
        depth: pools.
        norm: whether a batch normalisation follows each convolution (later than the paper).
        dropout: how often a map's value is left out behind the last two steps down.

    Attributes:
        lost: pixels at each edge of the image that get no scores.
        step: by how much the sizes of images that fit differ.
        least: the smallest size that fits.
    """

    def __init__(
        self,
        channels: int = 1,
        num_classes: int = 2,
        *,
        padded: bool = False,
        maps: int = 64,
        depth: int = 4,
        norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [maps << level for level in range(depth + 1)]
        padding = int(padded)

        def twice(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for before in (inputs, outputs):
                layers.append(nn.Conv2d(before, outputs, 3, padding=padding, bias=not norm))
                layers.append(nn.BatchNormAct2d(outputs) if norm else nn.ReLU(inplace=True))
            return nn.Sequential(*layers)

        self.down = nn.ModuleList(map(twice, [channels, *widths[:-1]], widths))
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(*pair, 2, stride=2) for pair in pairs)
        self.joined = nn.ModuleList(twice(*pair) for pair in pairs)
        self.score = nn.Conv2d(maps, num_classes, kernel_size=1)
        he(self)
        self.step = 1 << depth
        # Without padding two convolutions take 4 pixels at each level, on the way up once more.
        edge = 0 if padded else 4 * (self.step - 1)
        self.lost = 0 if padded else edge + 2 * self.step
        self.least = 2 * self.lost + (-edge % self.step or self.step)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 1, 572, 572]
        self._check(x.shape[2:])
        beside = []
        for level, convolutions in enumerate(self.down):
            x = convolutions(self.pool(x) if level else x)  # [N, 64, 568, 568] to [N, 1024, 28, 28]
            if level >= len(self.up) - 1:
                x = self.dropout(x)
            beside.append(x)
        beside.pop()
        for up, convolutions in zip(self.up, self.joined, strict=True):
            x = up(x)  # [N, 512, 56, 56] to [N, 64, 392, 392]
            x = convolutions(torch.cat([_middle(beside.pop(), x), x], 1))
        return self.score(x)  # [N, num_classes, 388, 388]

    def _check(self, size: torch.Size) -> None:
        for side in size:
            if side < self.least or (side - self.least) % self.step:
                raise ValueError(
                    f"an image must be {self.least}, {self.least + self.step}, "
                    f"{self.least + 2 * self.step}, ... pixels high and wide, got "
                    f"{size[0]}x{size[1]}"
                )


def _middle(x: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """The part of ``x`` that lies under ``of``."""
    top, left = ((n - m) // 2 for n, m in zip(x.shape[2:], of.shape[2:], strict=True))
    return x[:, :, top : top + of.shape[2], left : left + of.shape[3]]


def unet(num_classes: int = 2) -> UNet:
    """U-Net as published, for grey images of 572x572 pixels and others that fit."""
    return UNet(1, num_classes)


def unet_padded(num_classes: int = 2) -> UNet:
    """U-Net with padding, for grey images whose sides are multiples of 16."""
    return UNet(1, num_classes, padded=True)


_RONNEBERGER = (
    "Ronneberger, Fischer, Brox 2015, U-Net: Convolutional Networks for Biomedical Image "
    "Segmentation"
)

MODELS = (
    Model(
        "unet",
        unet,
        (1, 572, 572),
        "U-Net as published, scores for the middle of the image",
        _RONNEBERGER,
        task="segmentation",
        small=(1, 188, 188),
        parameters=31_030_658,
    ),
    Model(
        "unet-padded",
        unet_padded,
        (1, 512, 512),
        "U-Net with padding, scores for every pixel",
        _RONNEBERGER,
        task="segmentation",
        small=(1, 64, 64),
        parameters=31_030_658,
    ),
)
