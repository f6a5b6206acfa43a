"""RoIAlign and RoI pooling (csrc/roi.h has the definition). A box is (image, x1, y1, x2, y2)."""

from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Pair, Sizes, Tensor


def check_images(boxes: Tensor, images: int) -> None:
    """Raises RuntimeError where the first number of one of these boxes names none of ``images``
    images.

    On a GPU it waits for the answer.
    """
    number = boxes[:, 0]
    wrong = number[~((number > -1) & (number < images))].tolist()
    if wrong:
        raise RuntimeError(
            f"Found an invalid batch index: {wrong[0]:g} (the input has {images} images)"
        )


def _bins(x: Tensor, boxes: Tensor, size: Sizes, dtype: torch.dtype | None = None) -> Tensor:
    return layout.empty((boxes.shape[0], x.shape[1], *size), x, dtype=dtype)


class RoiAlignForward(NamedTuple):
    x: Tensor  # (N, C, H, W)
    boxes: Tensor  # (K, 5)
    output_size: Sizes
    scale: float
    sampling_ratio: int
    aligned: bool

    def results(self) -> Tensor:
        """y (K, C, OH, OW) in the layout of x."""
        return _bins(self.x, self.boxes, self.output_size)


class RoiAlignBackward(NamedTuple):
    grad_y: Tensor  # (K, C, OH, OW)
    boxes: Tensor  # (K, 5)
    input_shape: Sizes
    scale: float
    sampling_ratio: int
    aligned: bool
    channels_last: bool

    def results(self) -> Tensor:
        """grad_x (N, C, H, W), channels last as told."""
        return layout.input_grad(self.grad_y, self.input_shape, self.channels_last)


class RoiPoolForward(NamedTuple):
    x: Tensor  # (N, C, H, W)
    boxes: Tensor  # (K, 5)
    output_size: Sizes
    scale: float
    keep_indices: bool

    def results(self) -> Pair:
        """y (K, C, OH, OW) in the layout of x, and int64 positions in the plane, likewise; no
        elements unless they are kept."""
        y = _bins(self.x, self.boxes, self.output_size)
        if not self.keep_indices:
            return y, layout.nothing(self.x, dtype=torch.int64)
        return y, _bins(self.x, self.boxes, self.output_size, torch.int64)


class RoiPoolBackward(NamedTuple):
    grad_y: Tensor  # (K, C, OH, OW)
    indices: Tensor  # like grad_y
    boxes: Tensor  # (K, 5)
    input_shape: Sizes
    scale: float
    channels_last: bool

    def results(self) -> Tensor:
        """grad_x (N, C, H, W), channels last as told."""
        return layout.input_grad(self.grad_y, self.input_shape, self.channels_last)
