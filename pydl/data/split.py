"""What every data set of labelled images is loaded as."""

from dataclasses import dataclass

import torch
from torch.utils.data import TensorDataset


@dataclass(frozen=True)
class Split:
    """Images to learn from, and others that only measure.

    Both sets hold images (N, C, H, W), float32, and labels (N), int64, or maps of them (N, H, W).
    The training images have mean 0 and deviation 1 (in each channel); the held-out ones were scaled
    by the same numbers.
    """

    train: TensorDataset
    held_out: TensorDataset
    classes: tuple[str, ...]  # the labels' names
    mean: tuple[float, ...]  # a channel: what was subtracted from values between 0 and 1,
    deviation: tuple[float, ...]  # and what they were divided by after that
    source: str
    licence: str


def standardised(
    train: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    *,
    classes: tuple[str, ...],
    source: str,
    licence: str,
) -> Split:
    """The split of two pairs of images (N, C, H, W), uint8, and labels."""
    images, others = (pair[0].float().div_(255) for pair in (train, held_out))
    means, deviations = [], []
    for channel in range(images.shape[1]):
        values = images[:, channel]
        mean, deviation = values.mean(), values.std(correction=0)
        if values.min() == values.max():
            deviation = torch.ones(())
        values.sub_(mean).div_(deviation)
        others[:, channel].sub_(mean).div_(deviation)
        means.append(mean.item())
        deviations.append(deviation.item())
    return Split(
        TensorDataset(images, train[1]),
        TensorDataset(others, held_out[1]),
        classes,
        tuple(means),
        tuple(deviations),
        source,
        licence,
    )
