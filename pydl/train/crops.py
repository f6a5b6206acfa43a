"""Windows at fixed places of an image, over which a network's answers are averaged in testing.

AlexNet is tested on ten: the corners, the centre, and the same of the mirrored image (Krizhevsky,
Sutskever, Hinton 2012); VGG on several scales of the image as well (Simonyan, Zisserman 2014).

Images are (N, C, H, W), sizes (h, w); crops are (K, N, C, h, w), copied pixel by pixel, in the
order of torchvision's ``five_crop`` and ``ten_crop``.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.functional import interpolate

from pydl import functional
from pydl.models.record import evaluating

Crops = Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]


def centre_crop(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The window in the middle, K = 1.

    Raises:
        ValueError: the images are smaller.
    """
    return _windows(images, size, ((0.5, 0.5),))


def five_crop(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Top left, top right, bottom left, bottom right, centre, K = 5.

    Raises:
        ValueError: the images are smaller.
    """
    return _windows(images, size, ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)))


def mirrored(crops: Crops) -> Crops:
    """The crops of the images, then those of the images mirrored left to right."""
    return lambda images, size: torch.cat([crops(images, size), crops(images.flip(3), size)])


ten_crop = mirrored(five_crop)


def scaled(images: torch.Tensor, factors: Iterable[float]) -> list[torch.Tensor]:
    """The images enlarged or reduced by each of these factors, to whole pixels (bilinear, smoothed
    where they are reduced)."""
    height, width = images.shape[2:]
    sizes = [(round(height * factor), round(width * factor)) for factor in factors]
    return [
        images
        if size == (height, width)
        else interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        for size in sizes
    ]


@torch.no_grad()
def averaged(model: nn.Module, crops: torch.Tensor) -> torch.Tensor:
    """The mean over the crops (K, N, C, h, w) of the probabilities (N, classes) that the model, in
    evaluation mode, gives each; its scores are (N, classes)."""
    with evaluating(model):
        return torch.stack([functional.softmax(model(crop), 1) for crop in crops]).mean(0)


def _windows(
    images: torch.Tensor, size: tuple[int, int], places: Iterable[tuple[float, float]]
) -> torch.Tensor:
    """Windows whose upper left corner lies at these parts of the room that there is for it."""
    (height, width), (h, w) = images.shape[2:], size
    if not (0 < h <= height and 0 < w <= width):
        raise ValueError(f"no window of {size} pixels in images of {(height, width)}")
    corners = [(round(y * (height - h)), round(x * (width - w))) for y, x in places]
    return torch.stack([images[..., y : y + h, x : x + w] for y, x in corners])
