"""Pictures beside what every pixel of them is, and what a network takes it for."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pydl.visualize.palette import Theme
from pydl.visualize.plots import _bare, _figure

ROWS = ("input", "truth", "prediction", "difference")


def painted(
    map: torch.Tensor, colours: Sequence[tuple[int, int, int]], void: tuple[float, float, float]
) -> np.ndarray:
    """[H, W, 3] in 0 ... 1: each pixel of ``map`` (H, W) in the colour of its class, negative ones
    in ``void``."""
    every = torch.tensor([*([part / 255 for part in one] for one in colours), list(void)])
    return every[map.where(map >= 0, torch.tensor(len(colours)))].numpy()


def segmented(
    theme: Theme,
    images: torch.Tensor,
    truth: torch.Tensor,
    read: torch.Tensor,
    colours: Sequence[tuple[int, int, int]],
) -> Figure:
    """A column for each of some images (N, C, H, W) in 0 ... 1, with the classes (N, H, W) of their
    pixels, as they are and as they were read; below, the pixels that differ. What does not count
    has the colour of lines."""
    count, _, height, width = images.shape
    figure = _figure(theme, 9.6, 0.1 + len(ROWS) * (9.2 / count) * height / width)
    panels = figure.subplots(len(ROWS), count, squeeze=False)
    void = to_rgb(theme.line)
    wrong = torch.tensor([to_rgb(theme.paper), to_rgb(theme.loss), void])
    for column, (image, right, found) in enumerate(zip(images, truth, read, strict=True)):
        difference = (right != found).long().where(right >= 0, torch.tensor(2))
        shown = (
            image.permute(1, 2, 0).expand(-1, -1, 3).numpy(),
            painted(right, colours, void),
            painted(found, colours, void),
            wrong[difference].numpy(),
        )
        for axes, name, picture in zip(panels[:, column], ROWS, shown, strict=True):
            _bare(axes)
            axes.imshow(picture, vmin=0, vmax=1, interpolation="nearest")
            if column == 0:
                axes.set_ylabel(name, color=theme.faint, fontsize=10)
    return figure
