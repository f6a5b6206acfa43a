"""Segmentation of images larger than memory allows, tile by tile."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pydl.models.receptive import ReceptiveField, receptive_fields
from pydl.models.record import evaluating


@dataclass(frozen=True)
class Tiles:
    """How a network's images may be cut.

    Args:
        side: of a tile, in pixels.
        lost: pixels at each edge of an image for which there are no scores.
        margin: how many scores at an edge of a tile see past it, where the image goes on and the
            tile does not.
        step: pixels from one place where a tile may begin to the next: strides count from there.
    """

    side: int
    lost: int
    margin: int
    step: int

    def along(self, length: int) -> Iterator[tuple[slice, slice, slice]]:
        """For each tile along one side of an image: its pixels, its scores that are kept, and their
        place in the whole image's scores.

        Raises:
            ValueError: a tile would keep nothing.
        """
        stride = self.side - 2 * (self.lost + self.margin)
        stride -= stride % self.step
        if stride <= 0 < length - self.side:
            least = 2 * (self.lost + self.margin) + self.step
            raise ValueError(
                f"a tile of {self.side} pixels keeps no scores: this network sees {self.margin} "
                f"pixels to each side of one; a tile must have at least {least}"
            )
        last = max(0, length - self.side) // self.step * self.step
        begin = 0
        while True:
            begin = min(begin, last)
            end = length if begin == last else begin + self.side
            first = begin + (self.margin if begin else 0)
            past = end - 2 * self.lost - (0 if begin == last else self.margin)
            yield slice(begin, end), slice(first - begin, past - begin), slice(first, past)
            if begin == last:
                return
            begin += stride


def _scores(output: Any) -> torch.Tensor:
    return output["out"] if isinstance(output, dict) else output


@torch.no_grad()
def tiles(model: nn.Module, channels: int, side: int) -> Tiles:
    """How images of so many channels may be cut for this network into tiles of ``side`` pixels.

    What a score sees is found by a run: pixels beyond a tile are NaN, and so is every score that
    they have a part in.

    Args:
        model: from (N, channels, H, W) to scores (N, classes, H', W'), or a dict with these as
            ``out``.
        channels: of the images.
        side: of a tile; one that the network takes as the size of an image.

    Raises:
        ValueError: a score in the middle of a tile sees past it.
    """
    parameter = next(model.parameters())
    fields = receptive_fields(model, (1, channels, side, side)).values()
    step = max((field.stride for field in fields if isinstance(field, ReceptiveField)), default=1)
    whole = side + 2 * step
    x = torch.full(
        (1, channels, whole, whole), math.nan, device=parameter.device, dtype=parameter.dtype
    )
    x[:, :, step:-step, step:-step] = 0
    with evaluating(model):
        scores = _scores(model(x))
    lost = (whole - scores.shape[2]) // 2
    seen = scores.isnan().any(1)[0, step:-step, step:-step]  # [side - 2 * lost, ...]
    middle = len(seen) // 2
    if seen[middle, middle]:
        raise ValueError(
            f"scores in the middle of a tile of {side} pixels see past it: this network needs "
            "larger tiles, or sees the whole image wherever it is"
        )
    margin = 0
    while seen[margin:, margin:][: len(seen) - 2 * margin, : len(seen) - 2 * margin].any():
        margin += 1
    if any(isinstance(layer, nn.MaxUnpool2d) for layer in model.modules()):
        margin += step  # a pixel may move others to any place under one of the smallest maps
    return Tiles(side, lost, margin, step)


@torch.no_grad()
def tiled(model: nn.Module, images: torch.Tensor, side: int) -> torch.Tensor:
    """What ``model`` gives for whole images, computed from tiles of them.

    Tiles overlap by what a score sees, and begin where strides do, so that every score is the one
    that it would be for the whole image, but for rounding.

    Args:
        model: from (N, C, H, W) to scores (N, classes, H', W'), or a dict with these as ``out``;
            runs in evaluation mode. What sees the whole image, such as an average over it, cannot
            be cut.
        images: (N, C, H, W) of a size that the network takes, on any device: a tile at a time goes
            to the model's.
        side: of a tile in pixels; a size that the network takes.

    Returns:
        (N, classes, H', W') on the device of ``images``.

    Raises:
        ValueError: tiles are too small for what a score sees, or the network sees everything.
    """
    device = next(model.parameters()).device
    height, width = images.shape[2:]
    cut = tiles(model, images.shape[1], side)
    rows, columns = list(cut.along(height)), list(cut.along(width))
    whole: torch.Tensor | None = None
    with evaluating(model):
        for down, kept_down, to_down in rows:
            for across, kept_across, to_across in columns:
                tile = images[:, :, down, across].to(device)
                scores = _scores(model(tile))[:, :, kept_down, kept_across]
                if whole is None:
                    size = height - 2 * cut.lost, width - 2 * cut.lost
                    whole = torch.empty(
                        *scores.shape[:2], *size, dtype=scores.dtype, device=images.device
                    )
                whole[:, :, to_down, to_across] = scores
    assert whole is not None
    return whole
