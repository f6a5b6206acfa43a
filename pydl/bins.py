"""The bins of adaptive and pyramid pooling: how long they are, and the two forms of an index in
them.

Bin o of ``bins`` along an axis of ``size`` elements is [floor(o size / bins), ceil((o + 1) size /
bins)). As with windows (``indices.py``), the place of a maximum is kept as its number inside the
bin, one byte, where the longest bins have at most 256 elements.
"""

import math
from collections.abc import Sequence

import torch

MOST_LEVELS = 16  # of a pyramid


def longest(size: int, bins: int) -> int:
    """The elements of the longest bin along an axis."""
    rest = size % bins
    return size // bins + (0 if rest == 0 else 1 if bins % rest == 0 else 2)


def _lengths(size: Sequence[int], bins: Sequence[int]) -> list[int]:
    return [longest(n, out) for n, out in zip(size, bins, strict=True)]


def split(levels: Sequence[int], axes: int) -> list[list[int]]:
    """The levels of a pyramid, given one after the other, as a list each."""
    return [list(levels[i : i + axes]) for i in range(0, len(levels), axes)]


def index_form(input_size: Sequence[int], levels: Sequence[Sequence[int]]) -> str:
    """``offset`` where a byte counts the elements of the longest bins of all levels, else
    ``flat``."""
    most = max(math.prod(_lengths(input_size, level)) for level in levels)
    return "offset" if most <= 256 else "flat"


def flat_from_offset(
    offset: torch.Tensor, input_size: Sequence[int], output_size: Sequence[int]
) -> torch.Tensor:
    """uint8 places inside the bins (N, C, out...) as int64 positions in the flat input plane, in
    the same layout."""
    remaining = offset.long()
    flat = torch.zeros_like(remaining)
    lengths = _lengths(input_size, output_size)
    for axis, (n, out) in enumerate(zip(input_size, output_size, strict=True)):
        inner = math.prod(lengths[axis + 1 :])
        tap, remaining = remaining // inner, remaining % inner
        start = torch.arange(out, device=offset.device) * n // out
        shape = [-1 if other == axis else 1 for other in range(len(lengths))]
        flat = flat * n + start.reshape(shape) + tap
    return flat


def offset_from_flat(
    flat: torch.Tensor, input_size: Sequence[int], output_size: Sequence[int]
) -> torch.Tensor:
    """The inverse of :func:`flat_from_offset`."""
    remaining = flat
    offset = torch.zeros_like(flat)
    lengths = _lengths(input_size, output_size)
    for axis, (n, out) in enumerate(zip(input_size, output_size, strict=True)):
        inner = math.prod(input_size[axis + 1 :])
        place, remaining = remaining // inner, remaining % inner
        start = torch.arange(out, device=flat.device) * n // out
        shape = [-1 if other == axis else 1 for other in range(len(lengths))]
        offset = offset * lengths[axis] + place - start.reshape(shape)
    return offset.to(torch.uint8)
