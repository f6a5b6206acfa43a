"""Maps, filters and digits as pictures of their own pixels, without axes or words: a page sets its
text beside them, so that it stays readable at any width."""

import io
from collections.abc import Callable

import matplotlib
import numpy as np
import torch
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.image import imsave

from pydl.visualize.page import Picture
from pydl.visualize.palette import DARK, LIGHT, Theme
from pydl.visualize.plots import _ink

Colours = Callable[[Theme], Colormap]

ink = _ink


def signed(theme: Theme) -> Colormap:
    """From loss by paper to ours, with 0 in the middle if the limits are -m and m."""
    return LinearSegmentedColormap.from_list("signed", [theme.loss, theme.paper, theme.ours])


def heat(theme: Theme) -> Colormap:
    """From black to bright, on any page."""
    return matplotlib.colormaps["magma"]


def grey(theme: Theme) -> Colormap:
    """From black to white, on any page."""
    return matplotlib.colormaps["gray"]


def thumbnails(
    maps: torch.Tensor,
    colours: Colours,
    *,
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
) -> Picture:
    """``maps`` (C, H, W) side by side, a sixteenth of their width between them.

    Args:
        maps: one scale holds for all.
        colours: of a theme.
        columns: in a line; None for all.
        limits: the values of the first and the last colour; None for the least and the greatest.
    """
    low, high = limits or (maps.min().item(), maps.max().item())
    scaled = ((maps - low) / max(high - low, 1e-12)).clamp(0, 1).numpy()
    light, dark = (
        png(colours(theme)(scaled), columns=columns or len(maps)) for theme in (LIGHT, DARK)
    )
    return light, dark


def own_scale(maps: torch.Tensor) -> torch.Tensor:
    """Maps (C, H, W), each stretched from 0 to 1."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def png(pixels: np.ndarray, *, columns: int) -> bytes:
    """Pictures (N, H, W, 3), or 4 with how opaque they are, in 0 ... 1, so many in a line; what is
    between them is transparent."""
    count, height, width, channels = pixels.shape
    lines, gap = -(-count // columns), -(-width // 16)
    canvas = np.zeros((lines * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for i, one in enumerate(pixels):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        spot = canvas[top : top + height, left : left + width]
        spot[..., 3] = 1
        spot[..., :channels] = one
    target = io.BytesIO()
    imsave(target, canvas, format="png")
    return target.getvalue()
