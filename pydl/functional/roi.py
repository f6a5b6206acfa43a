"""Pooling of regions of interest."""

from collections.abc import Sequence

import torch

from pydl.functional.overridable import overridable
from pydl.ops import roi as ops


@overridable
def roi_align(
    input: torch.Tensor,
    boxes: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """RoIAlign: the mean of bilinear samples in each bin of each box.

    A sample more than one pixel above or left of the map, or beyond its height or width, counts as
    0; others are clamped to it. A box with a coordinate that is NaN, infinite or 2**22 pixels of
    the map away from its origin has no samples, and a bin without samples is 0.

    Equivalent to: ``avg_pool2d(grid_sample(input[n : n + 1], grid, padding_mode="border",
    align_corners=True), sampling_ratio)`` for each box, where ``grid`` holds its samples.

    Args:
        input: (N, C, H, W), contiguous or channels last; float32, float64, float16 or bfloat16.
        boxes: (K, 5), the image's number first, or a list of N tensors (L, 4), one per image, as
            (x1, y1, x2, y2); of the input's dtype. Coordinates are computed in float32, in float64
            for float64. Boxes get no gradient, as in torchvision: they are constants here.
        output_size: (PH, PW) or an int for both.
        spatial_scale: what the boxes' coordinates are multiplied by to become the map's.
        sampling_ratio: samples of a bin along each axis; 0 or less: as many as a bin is pixels
            long, rounded up.
        aligned: moves boxes by minus half a pixel, so that coordinates are those of the pixels'
            edges; without it boxes stay as they are and are at least one pixel high and wide.
        backend: see the module. PyTorch has no operator of its own for this, so ``auto`` ends at
            this package's.

    Returns:
        (K, C, PH, PW) in the input's layout.

    Raises:
        RuntimeError: shapes, devices or dtypes do not fit; a box is of an image that is not there,
            which on a GPU, where a check would mean waiting, gives zeros.
        TypeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: He, Gkioxari, Dollar and Girshick 2017, "Mask R-CNN"; torchvision's ``roi_align``.
    """
    arguments = output_size, spatial_scale, sampling_ratio, aligned
    return ops.roi_align(input, boxes, *arguments, backend)


@overridable
def roi_pool(
    input: torch.Tensor,
    boxes: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """RoI pooling: the largest pixel in each bin of each box.

    Corners are rounded to whole pixels, halves away from zero, and belong to the box. Of equal
    pixels the first in scan order gets the gradient; a NaN beats everything before it. A bin with
    no pixel on the map is 0, and so are all bins of a box that is not finite.

    Equivalent to: ``adaptive_max_pool2d(input[n, :, y1 : y2 + 1, x1 : x2 + 1], output_size)`` for
    each box within the map, its corners scaled and rounded.

    Args:
        input: (N, C, H, W), contiguous or channels last; float32, float64, float16 or bfloat16.
        boxes: as for :func:`roi_align`; they get no gradient either.
        output_size: (PH, PW) or an int for both.
        spatial_scale: what the boxes' coordinates are multiplied by to become the map's.
        backend: as for :func:`roi_align`.

    Returns:
        (K, C, PH, PW) in the input's layout.

    Raises:
        RuntimeError, TypeError, ValueError: as :func:`roi_align`.

    Source: Girshick 2015, "Fast R-CNN"; torchvision's ``roi_pool``.
    """
    return ops.roi_pool(input, boxes, output_size, spatial_scale, backend)
