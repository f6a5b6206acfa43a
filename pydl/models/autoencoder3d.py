"""A convolutional autoencoder for volumes: Masci, Meier, Ciresan, Schmidhuber, "Stacked
Convolutional Auto-Encoders for Hierarchical Feature Extraction", 2011, with three axes; trained to
take noise away (Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features
with Denoising Autoencoders", 2008).

A max pool halves the volume on the way to the code, a transposed convolution doubles it on the way
back. What the pool loses of where things are, a skip connection can lead past it (Mao, Shen, Yang,
"Image Restoration Using Very Deep Convolutional Encoder-Decoder Networks with Symmetric Skip
Connections", 2016).
"""

import torch

from pydl import nn
from pydl.models.model import Model


class Autoencoder3d(nn.Module):
    """From (N, channels, D, H, W) to as much again, 2 voxels or more along each axis.

    Args:
        channels: of a volume.
        maps: of the volume's own size, and of the code, which is half as large.
        norm: whether batch normalisation follows the convolutions.
        skip: whether the first maps are added to those that come back from the code.
    """

    def __init__(
        self,
        channels: int = 1,
        maps: tuple[int, int] = (16, 24),
        *,
        norm: bool = True,
        skip: bool = False,
    ) -> None:
        super().__init__()
        fine, coarse = maps

        def act(maps: int) -> nn.Module:
            return nn.BatchNormAct3d(maps) if norm else nn.ReLU(inplace=True)

        self.conv1 = nn.Conv3d(channels, fine, 3, padding=1, bias=not norm)
        self.act1 = act(fine)
        self.pool = nn.MaxPool3d(2)
        self.conv2 = nn.Conv3d(fine, coarse, 3, padding=1, bias=not norm)
        self.act2 = act(coarse)
        self.conv3 = nn.Conv3d(coarse, coarse, 3, padding=1, bias=not norm)
        self.act3 = act(coarse)
        self.deconv4 = nn.ConvTranspose3d(coarse, fine, 4, stride=2, padding=1, bias=not norm)
        self.act4 = act(fine)
        self.conv5 = nn.Conv3d(fine, channels, 3, padding=1)
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 1, D, H, W]
        first = self.act1(self.conv1(x))  # [N, 16, D, H, W]
        y = self.act2(self.conv2(self.pool(first)))  # [N, 24, D/2, H/2, W/2]
        code = self.act3(self.conv3(y))  # [N, 24, D/2, H/2, W/2]
        # An odd size was rounded down by the pool.
        y = self.deconv4(code, output_size=x.shape[2:])  # [N, 16, D, H, W]
        y = self.act4(y + first if self.skip else y)
        return self.conv5(y)  # [N, 1, D, H, W]


def autoencoder3d(channels: int = 1) -> Autoencoder3d:
    """The autoencoder with a code of 24 maps."""
    return Autoencoder3d(channels)


def autoencoder3d_skip(channels: int = 1) -> Autoencoder3d:
    """The same with a skip connection and without batch normalisation, whose statistics of a batch
    are one more noise where values themselves are to be given back."""
    return Autoencoder3d(channels, norm=False, skip=True)


MODELS = (
    Model(
        "autoencoder3d",
        autoencoder3d,
        (1, 24, 96, 128),
        "an autoencoder for volumes, with a max pool and a transposed convolution",
        "Masci, Meier, Ciresan, Schmidhuber 2011, Stacked Convolutional Auto-Encoders for "
        "Hierarchical Feature Extraction",
        task="restoration",
        small=(1, 6, 9, 8),
        parameters=51_521,
    ),
    Model(
        "autoencoder3d-skip",
        autoencoder3d_skip,
        (1, 24, 96, 128),
        "the same with a skip connection, without batch normalisation",
        "Mao, Shen, Yang 2016, Image Restoration Using Very Deep Convolutional Encoder-Decoder "
        "Networks with Symmetric Skip Connections",
        task="restoration",
        small=(1, 6, 9, 8),
        parameters=51_441,
    ),
)
