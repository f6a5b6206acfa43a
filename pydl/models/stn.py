"""Spatial transformer network: Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer
Networks", 2015.

A small network looks at the image and says by which affine map to look at it again; the image is
sampled there and goes to a classifier, here one of fully connected layers, which on its own would
have to learn every place, size and turn of a digit. All of it is differentiable, so that the
classifier's loss alone teaches the transformer where to look.
"""

import torch

from pydl import nn
from pydl.models.model import Model


class SpatialTransformer(nn.Module):
    """Looks at an image where a network of its own says: starts as the identity.

    Args:
        channels: of the images.
        side: height and width of the images.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.localisation = nn.Sequential(
            nn.Conv2d(channels, 20, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 20, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(20 * (side // 4) ** 2, 50),
            nn.ReLU(),
        )
        self.theta = nn.Linear(50, 6)
        nn.init.zeros_(self.theta.weight)
        with torch.no_grad():
            self.theta.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, C, H, W]
        theta = self.theta(self.localisation(x)).view(-1, 2, 3)  # [N, 2, 3]
        grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)  # [N, H, W, 2]
        return nn.functional.grid_sample(x, grid, align_corners=False)  # [N, C, H, W]


def _classifier(side: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(side * side, 256),
        nn.ReLU(),
        nn.Linear(256, 200),
        nn.ReLU(),
        nn.Linear(200, num_classes),
    )


def stn(num_classes: int = 10, *, side: int = 32) -> nn.Sequential:
    """A spatial transformer in front of three fully connected layers, for (N, 1, side, side)."""
    return nn.Sequential(SpatialTransformer(1, side), _classifier(side, num_classes))


def fully_connected(num_classes: int = 10, *, side: int = 32) -> nn.Sequential:
    """The same classifier without a transformer, to compare with."""
    return _classifier(side, num_classes)


_JADERBERG = "Jaderberg, Simonyan, Zisserman, Kavukcuoglu 2015, Spatial Transformer Networks"

MODELS = (
    Model(
        "stn",
        stn,
        (1, 32, 32),
        "a spatial transformer before fully connected layers",
        _JADERBERG,
        parameters=390_706,
    ),
)
