"""Batches of images changed a little at random, so that a network sees each image in many forms.

Each is called with images (N, C, H, W) of floating point and a generator on the CPU, and returns
images of the same shape (:class:`Crop`: of its own size). Every image of a batch draws for itself.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import affine_grid, grid_sample, pad

Augmentation = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

_GREY = (0.299, 0.587, 0.114)  # the luminance of red, green and blue, ITU-R BT.601


def _uniform(images: torch.Tensor, generator: torch.Generator, most: float) -> torch.Tensor:
    """One number an image in -most ... most: (N, 1, 1, 1)."""
    drawn = torch.rand(len(images), 1, 1, 1, generator=generator) * 2 - 1
    return (drawn * most).to(images)


def _chosen(images: torch.Tensor, generator: torch.Generator, p: float) -> torch.Tensor:
    """Whether each image is changed: (N, 1, 1, 1)."""
    return (torch.rand(len(images), 1, 1, 1, generator=generator) < p).to(images.device)


def _luminance(images: torch.Tensor) -> torch.Tensor:
    if images.shape[1] != 3:
        raise ValueError(
            f"only images of three colours can turn grey; these have {images.shape[1]}"
        )
    weights = torch.tensor(_GREY).to(images).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


class Compose:
    """One augmentation after the other."""

    def __init__(self, *parts: Augmentation) -> None:
        self.parts = parts

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for part in self.parts:
            images = part(images, generator)
        return images


@dataclass(frozen=True)
class Grey:
    """With probability ``p`` all three colours become the luminance."""

    p: float = 0.1

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.where(_chosen(images, generator, self.p), _luminance(images), images)


@dataclass(frozen=True)
class HorizontalFlip:
    """With probability ``p`` left and right change places."""

    p: float = 0.5

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.where(_chosen(images, generator, self.p), images.flip(3), images)


@dataclass(frozen=True)
class VerticalFlip:
    """With probability ``p`` top and bottom change places."""

    p: float = 0.5

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.where(_chosen(images, generator, self.p), images.flip(2), images)


@dataclass(frozen=True)
class Crop:
    """A window of ``size`` pixels, (H, W), at a random place, after ``padding`` zeros at each edge.

    Pixels are copied, not interpolated.
    """

    size: tuple[int, int]
    padding: int = 0

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        images = pad(images, [self.padding] * 4)
        count, _, *whole = images.shape
        picked = []
        for length, window in zip(whole, self.size, strict=True):
            if not 0 < window <= length:
                raise ValueError(f"no window of {self.size} pixels in images of {tuple(whole)}")
            first = torch.randint(length - window + 1, (count, 1), generator=generator)
            picked.append((first + torch.arange(window)).to(images.device))  # [N, window]
        rows, columns = picked[0][:, :, None], picked[1][:, None, :]
        number = torch.arange(count, device=images.device)[:, None, None]
        return images.permute(0, 2, 3, 1)[number, rows, columns].permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast (around the image's mean luminance) and, of three colours, saturation,
    each times a factor in 1 - part ... 1 + part. Results are not clamped; the hue stays."""

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        images = images * (1 + _uniform(images, generator, self.brightness))
        grey = _luminance(images) if images.shape[1] == 3 else images
        middle = grey.mean((1, 2, 3), keepdim=True)
        contrast = 1 + _uniform(images, generator, self.contrast)
        images = middle + (images - middle) * contrast
        if images.shape[1] != 3:
            return images
        grey = _luminance(images)
        return grey + (images - grey) * (1 + _uniform(images, generator, self.saturation))


@dataclass(frozen=True)
class Affine:
    """Turned, moved and scaled at once, with one interpolation; pixels from outside repeat the
    border.

    Args:
        degrees: the largest angle.
        shift: the largest way, in parts of the width and of the height.
        scale: the largest change of size, in parts of one.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        def uniform(most: float) -> torch.Tensor:
            return _uniform(images, generator, most).flatten()

        angle, scale = uniform(math.radians(self.degrees)), 1 + uniform(self.scale)
        cos, sin = angle.cos() / scale, angle.sin() / scale
        # The grid's unit is half a side, so that a turn of an oblong image has to know both.
        oblong = images.shape[2] / images.shape[3]
        rows = [
            torch.stack([cos, -sin * oblong, uniform(2 * self.shift)], 1),
            torch.stack([sin / oblong, cos, uniform(2 * self.shift)], 1),
        ]
        grid = affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        return grid_sample(images, grid, padding_mode="border", align_corners=False)


def Translation(shift: float = 0.1) -> Affine:
    """Moved by at most ``shift`` of the width and of the height."""
    return Affine(shift=shift)


def Rotation(degrees: float = 15.0) -> Affine:
    """Turned about the centre by at most ``degrees`` either way."""
    return Affine(degrees=degrees)
