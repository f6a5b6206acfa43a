"""A convolutional autoencoder for volumes: Masci, Meier, Ciresan, Schmidhuber, "Stacked
Convolutional Auto-Encoders for Hierarchical Feature Extraction", 2011, with three axes; trained to
take noise away (Vincent, Larochelle, Bengio, Manzagol, "Extracting and Composing Robust Features
with Denoising Autoencoders", 2008).

The encoder halves a volume by max pools, the decoder doubles it again by unpooling, which puts each
value where its maximum was (Zeiler, Fergus 2013), and by transposed convolutions.
"""

import torch

from pydl import nn
from pydl.models.model import Model


class Autoencoder3d(nn.Module):
    """From (N, channels, D, H, W) to as much again, 4 voxels or more along each axis.

    Args:
        channels: of a volume.
        maps: of the encoder's two stages; the code has as many as the second.
    """

    def __init__(self, channels: int = 1, maps: tuple[int, int] = (16, 32)) -> None:
        super().__init__()
        first, second = maps
        self.conv1 = nn.Conv3d(channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNormAct3d(first)
        self.pool1 = nn.MaxPool3d(2, return_indices=True)
        self.conv2 = nn.Conv3d(first, second, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNormAct3d(second)
        self.pool2 = nn.MaxPool3d(2, return_indices=True)
        self.conv3 = nn.Conv3d(second, second, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNormAct3d(second)
        self.unpool2 = nn.MaxUnpool3d(2)
        self.deconv2 = nn.ConvTranspose3d(second, first, 3, padding=1, bias=False)
        self.bn4 = nn.BatchNormAct3d(first)
        self.unpool1 = nn.MaxUnpool3d(2)
        self.deconv1 = nn.ConvTranspose3d(first, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, 1, D, H, W]
        fine = self.bn1(self.conv1(x))  # [N, 16, D, H, W]
        y, where1 = self.pool1(fine)  # [N, 16, D/2, H/2, W/2]
        coarse = self.bn2(self.conv2(y))  # [N, 32, D/2, H/2, W/2]
        y, where2 = self.pool2(coarse)  # [N, 32, D/4, H/4, W/4]
        code = self.bn3(self.conv3(y))  # [N, 32, D/4, H/4, W/4]
        y = self.unpool2(code, where2, output_size=coarse.shape)  # [N, 32, D/2, H/2, W/2]
        y = self.bn4(self.deconv2(y))  # [N, 16, D/2, H/2, W/2]
        y = self.unpool1(y, where1, output_size=fine.shape)  # [N, 16, D, H, W]
        return self.deconv1(y)  # [N, 1, D, H, W]


def autoencoder3d(channels: int = 1) -> Autoencoder3d:
    """The autoencoder of two stages."""
    return Autoencoder3d(channels)


MODELS = (
    Model(
        "autoencoder3d",
        autoencoder3d,
        (1, 24, 96, 128),
        "an autoencoder for volumes, with max pools and unpooling",
        "Masci, Meier, Ciresan, Schmidhuber 2011, Stacked Convolutional Auto-Encoders for "
        "Hierarchical Feature Extraction",
        task="restoration",
        small=(1, 6, 9, 8),
        parameters=56_353,
    ),
)
