"""Pictures beside what every pixel of them is, and what a network takes it for."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb

from pydl.visualize.page import Picture
from pydl.visualize.palette import DARK, LIGHT, Theme
from pydl.visualize.thumbnails import png

Colour = tuple[int, int, int]


def painted(
    map: torch.Tensor, colours: Sequence[Colour], void: tuple[float, float, float]
) -> np.ndarray:
    """[H, W, 3] in 0 ... 1: each pixel of ``map`` (H, W) in the colour of its class, negative ones
    in ``void``."""
    every = torch.tensor([*([part / 255 for part in one] for one in colours), list(void)])
    return every[map.where(map >= 0, torch.tensor(len(colours)))].numpy()


def panels(
    theme: Theme,
    image: torch.Tensor,
    truth: torch.Tensor,
    read: torch.Tensor,
    colours: Sequence[Colour],
) -> np.ndarray:
    """[4, H, W, 3] in 0 ... 1: an image (C, H, W) in 0 ... 1, the classes (H, W) of its pixels, as
    they are and as they were read, and the pixels that differ. What does not count has the colour
    of lines."""
    void = to_rgb(theme.line)
    wrong = torch.tensor([to_rgb(theme.page), to_rgb(theme.loss), void])
    difference = (truth != read).long().where(truth >= 0, torch.tensor(2))
    return np.stack(
        [
            image.permute(1, 2, 0).expand(-1, -1, 3).numpy(),
            painted(truth, colours, void),
            painted(read, colours, void),
            wrong[difference].numpy(),
        ]
    )


def segmented(
    image: torch.Tensor, truth: torch.Tensor, read: torch.Tensor, colours: Sequence[Colour]
) -> Picture:
    """The :func:`panels` side by side."""
    every = (panels(theme, image, truth, read, colours) for theme in (LIGHT, DARK))
    light, dark = (png(some, columns=len(some)) for some in every)
    return light, dark
