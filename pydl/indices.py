"""The two forms of a max pooling index: the tap's number inside its window, and the flat position
in the input plane.

Inside the package the first is kept, one byte an output; PyTorch's users see the second, eight
bytes.
"""

import math
from collections.abc import Sequence

import torch


def flat_from_offset(
    offset: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """uint8 window offsets (N, C, out...) as int64 positions in the flat input plane, in the same
    layout."""
    remaining = offset.long()
    flat = torch.zeros_like(remaining)
    for axis in range(len(kernel_size)):
        inner = math.prod(kernel_size[axis + 1 :])
        tap, remaining = remaining // inner, remaining % inner
        place = _window_start(offset, axis, stride, padding) + tap * dilation[axis]
        flat = flat * input_size[axis] + place
    return flat


def offset_from_flat(
    flat: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """The inverse of :func:`flat_from_offset`."""
    remaining = flat
    offset = torch.zeros_like(flat)
    for axis in range(len(kernel_size)):
        inner = math.prod(input_size[axis + 1 :])
        place, remaining = remaining // inner, remaining % inner
        offset = (
            offset * kernel_size[axis]
            + (place - _window_start(flat, axis, stride, padding)) // dilation[axis]
        )
    return offset.to(torch.uint8)


def _window_start(
    index: torch.Tensor, axis: int, stride: Sequence[int], padding: Sequence[int]
) -> torch.Tensor:
    """Where each output's window begins along a spatial axis, shaped to broadcast against (N, C,
    out...)."""
    axes = index.ndim - 2
    start = torch.arange(index.shape[2 + axis], device=index.device) * stride[axis] - padding[axis]
    return start.reshape([-1 if other == axis else 1 for other in range(axes)])


def check_positions(index: torch.Tensor, size: Sequence[int]) -> None:
    """Raises RuntimeError where one of these positions is outside a plane of this size.

    On a GPU it waits for the answer.
    """
    if index.numel() == 0:
        return
    least, most = (int(value) for value in index.aminmax())
    if least < 0 or most >= math.prod(size):
        raise RuntimeError(
            f"Found an invalid max index: {least if least < 0 else most} "
            f"(output volumes are of size {'x'.join(map(str, size))})"
        )


def check_images(boxes: torch.Tensor, images: int) -> None:
    """Raises RuntimeError where the first number of one of these boxes (image, x1, y1, x2, y2)
    names none of so many images.

    On a GPU it waits for the answer.
    """
    number = boxes[:, 0]
    wrong = number[~((number > -1) & (number < images))].tolist()
    if wrong:
        raise RuntimeError(
            f"Found an invalid batch index: {wrong[0]:g} (the input has {images} images)"
        )
