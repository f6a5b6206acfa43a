"""Which words were read while each character was written."""

from collections.abc import Sequence

import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pydl.visualize.palette import Theme
from pydl.visualize.plots import _figure


def matrix(
    theme: Theme, weights: torch.Tensor, read: Sequence[str], written: Sequence[str]
) -> Figure:
    """Attention weights (T, S) as a picture, 0 the paper and 1 the darkest: a column for each of
    the T symbols ``written``, from left to right, a row for each of the S that were ``read``."""
    figure = _figure(theme, 9.6, 0.7 + 0.27 * len(read))
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("weights", [theme.paper, theme.ours])
    axes.imshow(weights.T.numpy(), cmap=colours, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(written)), written)
    axes.set_yticks(range(len(read)), read)
    axes.xaxis.tick_top()
    axes.set_xticks([place + 0.5 for place in range(len(written))], minor=True)
    axes.set_yticks([place + 0.5 for place in range(len(read))], minor=True)
    axes.grid(which="minor", color=theme.line, linewidth=0.4)
    axes.tick_params(which="both", length=0, labelcolor=theme.ink)
    axes.set_facecolor(theme.paper)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    return figure
