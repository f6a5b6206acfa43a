"""A convolutional autoencoder for volumes: Masci, Meier, Ciresan, Schmidhuber, "Stacked
Convolutional Auto-Encoders for Hierarchical Feature Extraction", 2011, with three axes; trained to
take noise away (Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features
with Denoising Autoencoders", 2008).

A max pool halves the volume on the way to the code, a transposed convolution doubles it on the way
back.
"""

import torch

from pydl import nn
from pydl.models.model import Model


class Autoencoder3d(nn.Module):
    """From (N, channels, D, H, W) to as much again, 2 voxels or more along each axis.

    Args:
        channels: of a volume.
        maps: of the volume's own size, and of the code, which is half as large.
    """

    def __init__(self, channels: int = 1, maps: tuple[int, int] = (16, 24)) -> None:
        super().__init__()
        fine, coarse = maps
        self.conv1 = nn.Conv3d(channels, fine, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNormAct3d(fine)
        self.pool = nn.MaxPool3d(2)
        self.conv2 = nn.Conv3d(fine, coarse, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNormAct3d(coarse)
        self.conv3 = nn.Conv3d(coarse, coarse, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNormAct3d(coarse)
        self.deconv4 = nn.ConvTranspose3d(coarse, fine, 4, stride=2, padding=1, bias=False)
        self.bn4 = nn.BatchNormAct3d(fine)
        self.conv5 = nn.Conv3d(fine, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 1, D, H, W]
        y = self.pool(self.bn1(self.conv1(x)))  # [N, 16, D/2, H/2, W/2]
        y = self.bn2(self.conv2(y))  # [N, 24, D/2, H/2, W/2]
        code = self.bn3(self.conv3(y))  # [N, 24, D/2, H/2, W/2]
        # An odd size was rounded down by the pool.
        y = self.deconv4(code, output_size=x.shape[2:])  # [N, 16, D, H, W]
        return self.conv5(self.bn4(y))  # [N, 1, D, H, W]


def autoencoder3d(channels: int = 1) -> Autoencoder3d:
    """The autoencoder with a code of 24 maps."""
    return Autoencoder3d(channels)


MODELS = (
    Model(
        "autoencoder3d",
        autoencoder3d,
        (1, 24, 96, 128),
        "an autoencoder for volumes, with a max pool and a transposed convolution",
        "Masci, Meier, Ciresan, Schmidhuber 2011, Stacked Convolutional Auto-Encoders for "
        "Hierarchical Feature Extraction",
        small=(1, 6, 9, 8),
        parameters=51_521,
    ),
)
