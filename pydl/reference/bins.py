"""The bins of adaptive pooling, tap by tap, as ``window.py`` lists those of a sliding window."""

import itertools
from collections.abc import Iterator, Sequence

import torch


def bounds(size: int, bins: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each of ``bins`` bins along an axis begins, and where it ends."""
    o = torch.arange(bins)
    return o * size // bins, -(-(o + 1) * size // bins)


def taps(
    input_size: Sequence[int], output_size: Sequence[int], device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For each place inside the longest bin, in scan order: the flat input position that each bin
    has there, and whether it has one.

    Positions outside are given as 0. Both tensors have one axis, the bins' in scan order.
    """
    axes = [bounds(n, out) for n, out in zip(input_size, output_size, strict=True)]
    longest = [int((end - start).max()) for start, end in axes]
    for tap in itertools.product(*(range(k) for k in longest)):
        position = torch.zeros((), dtype=torch.int64)
        inside = torch.ones((), dtype=torch.bool)
        for n, (start, end), t in zip(input_size, axes, tap, strict=True):
            position = position[..., None] * n + start + t
            inside = inside[..., None] & (start + t < end)
        inside = inside.flatten().to(device)
        yield position.flatten().to(device) * inside, inside


def counts(
    input_size: Sequence[int], output_size: Sequence[int], like: torch.Tensor
) -> torch.Tensor:
    """How many elements each bin has, in scan order."""
    total = like.new_ones(())
    for n, out in zip(input_size, output_size, strict=True):
        start, end = bounds(n, out)
        total = total[..., None] * (end - start).to(like)
    return total.flatten()
