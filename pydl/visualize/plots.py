"""Plots. Each function draws one figure in the colours of a theme; nothing here touches pyplot's
state."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from pydl.train import Epoch
from pydl.visualize.operators import PASSES, OperatorRow
from pydl.visualize.palette import DARK, LIGHT, Theme

TIMES = "\N{MULTIPLICATION SIGN}"


def _figure(theme: Theme, width: float, height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    return Figure(figsize=(width, height), facecolor=theme.paper, layout=layout)


def _quiet(axes: Axes, theme: Theme) -> None:
    """Removes all lines but those that carry something."""
    axes.set_facecolor(theme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.line)
    axes.tick_params(colors=theme.faint, labelcolor=theme.faint, length=3)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _ink(theme: Theme) -> Colormap:
    """From paper to ink: digits as they were written."""
    return LinearSegmentedColormap.from_list("ink", [theme.paper, theme.ink])


def learning_curve(theme: Theme, epochs: Sequence[Epoch], target: float) -> Figure:
    """Loss on the left, accuracy on the right, by epoch."""
    figure = _figure(theme, 9.6, 3.3)
    left, right = figure.subplots(1, 2)
    number = range(1, len(epochs) + 1)
    left.plot(
        number, [e.loss for e in epochs], color=theme.loss, linewidth=2, marker="o", markersize=3
    )
    left.set_yscale("log")
    left.set_title(
        "Loss (cross-entropy, training images)", color=theme.ink, fontsize=11, loc="left"
    )
    curves = (
        ("training images, distorted", "accuracy", theme.faint),
        ("held-out images", "held_out_accuracy", theme.ours),
    )
    for name, field, color in curves:
        values = [100 * getattr(e, field) for e in epochs]
        right.plot(
            number,
            values,
            color=color,
            linewidth=2,
            marker="o",
            markersize=3,
            label=f"{name}: {values[-1]:.1f} %",
        )
    right.axhline(
        100 * target,
        color=theme.good,
        linewidth=1,
        linestyle=(0, (4, 3)),
        label=f"target: {100 * target:.0f} %",
    )
    right.set_ylim(0, 102)
    right.set_title("Accuracy (%)", color=theme.ink, fontsize=11, loc="left")
    right.legend(frameon=False, labelcolor=theme.ink, fontsize=9, loc="lower right")
    for axes in (left, right):
        _quiet(axes, theme)
        axes.grid(axis="y", color=theme.line, linewidth=0.6)
        axes.set_xlabel("epoch", color=theme.faint)
    return figure


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


def filters(theme: Theme, weight: torch.Tensor) -> Figure:
    """``weight`` (F, 1, KH, KW): each filter a picture, one scale for all."""
    figure = _figure(theme, 9.6, 1.9)
    panels = figure.subplots(1, len(weight))
    most = weight.abs().max().item()
    colors = LinearSegmentedColormap.from_list("signed", [theme.loss, theme.paper, theme.ours])
    for i, axes in enumerate(panels):
        picture = axes.imshow(weight[i, 0].numpy(), cmap=colors, vmin=-most, vmax=most)
        axes.set_title(f"filter {i + 1}", color=theme.faint, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(theme.line)
    bar = figure.colorbar(picture, ax=list(panels), fraction=0.02, pad=0.01)
    bar.ax.tick_params(colors=theme.faint, labelcolor=theme.faint, labelsize=8, length=2)
    bar.outline.set_edgecolor(theme.line)
    return figure


def activations(theme: Theme, image: torch.Tensor, maps: Mapping[str, torch.Tensor]) -> Figure:
    """The image (H, W), then by title the maps (C, H, W) of some layers, each map on its own
    scale."""
    grids = [_grid(len(some)) for some in maps.values()]
    figure = _figure(theme, 9.6, 3.9)
    widths = [1.15, *(0.65 + 0.425 * columns for _, columns in grids)]
    parts: Any = figure.subfigures(1, len(widths), width_ratios=widths)
    groups = (
        (f"input, {_size(image[None])}", image[None], (1, 1), _ink(theme)),
        *(
            (f"{title}: {_size(some)}", some, grid, "magma")
            for (title, some), grid in zip(maps.items(), grids, strict=True)
        ),
    )
    for part, (title, some, grid, colors) in zip(parts, groups, strict=True):
        part.set_facecolor(theme.paper)
        part.suptitle(title, color=theme.faint, fontsize=10)
        panels = list(part.subplots(*grid, squeeze=False).flat)
        for axes in panels:
            _bare(axes)
            axes.set_facecolor(theme.paper)
        for axes, one in zip(panels, some, strict=False):
            axes.imshow(one.numpy(), cmap=colors)
    return figure


def _grid(count: int) -> tuple[int, int]:
    """Rows and columns, at least as many rows, that have room for so many."""
    columns = math.isqrt(count)
    return -(-count // columns), columns


def _size(maps: torch.Tensor) -> str:
    count, height, width = maps.shape
    return f"{height}{TIMES}{width}" if count == 1 else f"{count} maps of {height}{TIMES}{width}"


def read_digits(
    theme: Theme, images: torch.Tensor, labels: torch.Tensor, probabilities: torch.Tensor
) -> Figure:
    """Images (N, H, W) with what was written, what was read, and how sure the network was."""
    columns = max(4, min(8, len(images)))
    rows = -(-len(images) // columns)
    figure = _figure(theme, 9.6, 0.2 + rows * (9.6 / columns + 0.45))
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        _bare(axes)
        axes.set_facecolor(theme.paper)
    for axes, image, label, p in zip(
        panels.flat, images, labels.tolist(), probabilities, strict=False
    ):
        axes.imshow(image.numpy(), cmap=_ink(theme))
        sure, read = p.max(0)
        said = f"written {label}, read {read.item()}\n{100 * sure.item():.0f} % sure"
        axes.set_title(said, color=theme.ink if read == label else theme.loss, fontsize=9)
    return figure


def speed(theme: Theme, rows: Sequence[OperatorRow]) -> Figure:
    """How many times faster than PyTorch each call is, one bar per pass, on a logarithmic scale
    around 1."""
    bars = [
        (f"{row.layer}, {name}", row.ratio(kind), row)
        for row in rows
        for kind, name in PASSES.items()
    ]
    figure = _figure(theme, 9.6, 0.9 + 0.36 * len(bars))
    axes = figure.subplots()
    _quiet(axes, theme)
    places = range(len(bars))
    for place, (_, ratio, row) in zip(places, bars, strict=True):
        color = theme.faint if row.backend == "aten" else theme.ours if ratio >= 1 else theme.loss
        axes.barh(place, ratio - 1, left=1, color=color, height=0.66)
        above = ratio >= 1
        axes.annotate(
            f"{ratio:.2f}{TIMES}",
            (ratio, place),
            xytext=(5 if above else -5, 0),
            textcoords="offset points",
            ha="left" if above else "right",
            va="center",
            color=theme.ink,
            fontsize=10,
        )
    axes.axvline(1, color=theme.faint, linewidth=1)
    axes.set_xscale("log")
    ratios = [ratio for _, ratio, _ in bars]
    axes.set_xlim(min(0.5, 0.6 * min(ratios)), max(2.0, 1.6 * max(ratios)))
    ticks = [
        t
        for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
        if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{TIMES}"))
    axes.set_yticks(places, [name for name, _, _ in bars])
    axes.tick_params(axis="y", labelcolor=theme.ink, length=0)
    axes.invert_yaxis()
    axes.set_xlabel(
        "times as fast as stock PyTorch (grey: PyTorch's own operator served)", color=theme.faint
    )
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    target = io.BytesIO()
    with rc_context({"font.family": "sans-serif"}):
        figure.savefig(target, format="png", dpi=160, facecolor=figure.get_facecolor())
    return target.getvalue()


class Album:
    """Draws each plot in both themes, and keeps the light one as a file.

    Args:
        folder: where the files go; it is there already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, name: str, draw: Callable[..., Figure], *arguments: object
    ) -> tuple[bytes, bytes]:
        light, dark = (png(draw(theme, *arguments)) for theme in (LIGHT, DARK))
        (self.folder / f"{name}.png").write_bytes(light)
        return light, dark
