"""A sentence about each region of an image: Johnson, Karpathy, Fei-Fei, "DenseCap: Fully
Convolutional Localization Networks for Dense Captioning", 2016, for regions that are given.

The convolutions run once for all regions of an image; each takes its part of the map by bilinear
samples, a grid of as many places whatever its size, and the decoder reads these with attention, as
it reads the map of a whole image. The coordinates beside the features are those in the image, so
that a sentence can say where the region is and how large.
"""

from typing import Any

import torch

from pydl import nn
from pydl.models.model import Model
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.captioner import Captioner
from pydl.models.sequence.decoder import State
from pydl.models.stages import stages


class RegionCaptioner(Captioner):
    """Writes symbols about regions of images.

    Args:
        features, size, symbols, options: see :class:`Captioner`.
        stride: pixels of an image from one place of the map to the next.
        grid: a region is read as so many places across and down.
    """

    def __init__(
        self,
        features: nn.Module,
        size: int,
        symbols: int,
        *,
        stride: int,
        grid: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(features, size, symbols, **options)
        self.align = nn.RoIAlign(grid, 1 / stride, sampling_ratio=2, aligned=True)

    def read(
        self, images: torch.Tensor, regions: torch.Tensor | None = None
    ) -> tuple[State, Memory]:
        """What the decoder starts from, for each region.

        Args:
            images: (B, C, H, W).
            regions: (K, 5), of the images' dtype: an image's number, left, top, right and bottom in
                pixels; None for each image as a whole.
        """
        if regions is None:
            count, _, height, width = images.shape
            whole = torch.tensor([0, 0, width, height]).expand(count, 4)
            regions = torch.cat([torch.arange(count)[:, None], whole], 1).to(images)
        return self.begin_with(self.align(self.places(self.features(images)), regions))


def region_captioner(symbols: int = 27) -> RegionCaptioner:
    """For grey images of digits, and phrases of what, how large and where they are."""
    maps = (16, 32, 64)
    return RegionCaptioner(stages(1, maps), maps[-1], symbols, stride=4)


MODELS = (
    Model(
        "region_captioner",
        region_captioner,
        (1, 64, 64),
        "a sentence on each region of an image, with attention over its aligned part of the map",
        "Johnson, Karpathy, Fei-Fei 2016, DenseCap: Fully Convolutional Localization Networks for "
        "Dense Captioning",
        task="captioning",
        tokens=27,
        small=(1, 16, 16),
        target=(3,),
        parameters=141_659,
    ),
)
