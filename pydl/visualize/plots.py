"""Plots. Each function draws one figure in the colours of a theme; nothing here touches pyplot's
state."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pydl.train import Epoch
from pydl.visualize.page import Picture
from pydl.visualize.palette import DARK, LIGHT, Theme


def _figure(theme: Theme, width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), facecolor=theme.paper, layout=layout)


def _quiet(axes: Axes, theme: Theme) -> None:
    """Removes all lines but those that carry something."""
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.line)
    axes.tick_params(which="both", colors=theme.faint, labelcolor=theme.faint, length=3)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _ink(theme: Theme) -> Colormap:
    """From paper to ink: digits as they were written."""
    return LinearSegmentedColormap.from_list("ink", [theme.paper, theme.ink])


def loss_curve(theme: Theme, epochs: Sequence[Epoch]) -> Figure:
    """The training images' loss by epoch."""
    figure, axes = _by_epoch(theme, "Loss (cross-entropy, training images)")
    axes.plot(range(1, len(epochs) + 1), [e.loss for e in epochs], color=theme.loss, **_LINE)
    axes.set_yscale("log")
    return figure


def accuracy_curve(theme: Theme, epochs: Sequence[Epoch], target: float) -> Figure:
    """The accuracy of both sets by epoch."""
    figure, axes = _by_epoch(theme, "Accuracy (%)")
    curves = (
        ("training images, distorted", "accuracy", theme.faint),
        ("held-out images", "held_out_accuracy", theme.ours),
    )
    for name, field, color in curves:
        values = [100 * getattr(e, field) for e in epochs]
        label = f"{name}: {values[-1]:.1f} %"
        axes.plot(range(1, len(epochs) + 1), values, color=color, label=label, **_LINE)
    dashes = (0, (4, 3))
    label = f"target: {100 * target:.0f} %"
    axes.axhline(100 * target, color=theme.good, linewidth=1, linestyle=dashes, label=label)
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9, loc="lower right")
    return figure


_LINE: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 3}


def _by_epoch(theme: Theme, title: str) -> tuple[Figure, Axes]:
    figure = _figure(theme, 4.8, 3.3)
    axes = figure.subplots()
    _quiet(axes, theme)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set_xlabel("epoch", color=theme.faint)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left")
    return figure, axes


def confusion_matrix(theme: Theme, counts: torch.Tensor, classes: Sequence[str]) -> Figure:
    """``counts`` (classes, classes): row what was written, column what was read."""
    figure = _figure(theme, 5.2, 5.0)
    axes = figure.subplots()
    blank = LinearSegmentedColormap.from_list("right", [theme.paper, theme.ours])
    right = torch.eye(len(counts), dtype=torch.bool)
    shade = torch.where(right, 0.75 * counts / counts.max(), torch.zeros(()))
    axes.imshow(shade.numpy(), cmap=blank, vmin=0, vmax=1)
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            if count:
                color = theme.ink if i == j else theme.loss
                axes.text(
                    j,
                    i,
                    count,
                    ha="center",
                    va="center",
                    color=color,
                    fontsize=10,
                    fontweight="bold",
                )
            elif i != j:
                axes.text(j, i, "·", ha="center", va="center", color=theme.line, fontsize=10)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("read as", color=theme.faint)
    axes.set_ylabel("written", color=theme.faint)
    axes.tick_params(length=0, labelcolor=theme.ink)
    for spine in axes.spines.values():
        spine.set_color(theme.line)
    axes.set_facecolor(theme.paper)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    target = io.BytesIO()
    with rc_context({"font.family": "sans-serif"}):
        figure.savefig(target, format="png", dpi=160, facecolor=figure.get_facecolor())
    return target.getvalue()


class Album:
    """Keeps the light form of every picture as a file.

    Args:
        folder: where the files go; it is there already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str, draw: Callable[..., Figure], *arguments: object) -> Picture:
        """A plot, drawn in both themes."""
        light, dark = (png(draw(theme, *arguments)) for theme in (LIGHT, DARK))
        return self.keep(name, (light, dark))

    def keep(self, name: str, picture: Picture) -> Picture:
        """A picture that is drawn already."""
        (self.folder / f"{name}.png").write_bytes(picture[0])
        return picture
