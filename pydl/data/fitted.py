"""Images as a network takes them."""

import torch
from torch.nn.functional import interpolate
from torch.utils.data import default_collate


class Fitted:
    """Makes a batch of examples whose images have a network's channels and size: the ``collate_fn``
    of a DataLoader.

    Args:
        shape: channels, height and width. Images of one channel are repeated for more, all are
            scaled to that size (bilinear, with antialiasing).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.channels, *self.size = shape

    def __call__(self, examples: list) -> list[torch.Tensor]:
        images, labels = default_collate(examples)
        if list(images.shape[2:]) != self.size:
            images = interpolate(images, self.size, mode="bilinear", antialias=True)
        return [images.expand(-1, self.channels, -1, -1).contiguous(), labels]
