"""Curves in one plot, such as a figure by the layer, by the depth or by the number of examples."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from pydl.train import Epoch
from pydl.visualize.palette import Theme
from pydl.visualize.plots import _figure, _quiet

Curve = Sequence[tuple[float, float]]  # places and values


def curves(
    theme: Theme,
    title: str,
    along: str,
    series: Mapping[str, Curve],
    *,
    log_x: bool = False,
    log_y: bool = False,
    span: tuple[float, float] | None = None,
    half: bool = False,
) -> Figure:
    """One line for each of at most four series, by name; ``along`` says what the places are,
    ``span`` the least and greatest value shown, where plots are to be compared. One of two plots
    side by side is ``half`` as wide."""
    figure = _figure(theme, 4.8 if half else 9.6, 3.8)
    axes = figure.subplots()
    _quiet(axes, theme)
    colours = (theme.ours, theme.loss, theme.good, theme.faint)
    for (name, curve), colour in zip(series.items(), colours, strict=False):
        places, values = zip(*curve, strict=True)
        axes.plot(places, values, color=colour, linewidth=2, marker="o", markersize=4, label=name)
    if log_x:
        axes.set_xscale("log")
        axes.set_xticks(sorted({place for curve in series.values() for place, _ in curve}))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.minorticks_off()
    if log_y:
        axes.set_yscale("log")
    if span:
        axes.set_ylim(*span)
    axes.grid(axis="y", color=theme.line, linewidth=0.6)
    axes.set_xlabel(along, color=theme.faint)
    axes.set_title(title, color=theme.ink, fontsize=11, loc="left")
    axes.legend(frameon=False, labelcolor=theme.ink, fontsize=9)
    return figure


def losses(theme: Theme, title: str, epochs: Sequence[Epoch], of: str) -> Figure:
    """The loss by epoch, of the training data and of what was held out; ``of`` says what they are,
    several of them."""
    series = {
        f"training {of}": [(epoch.number, epoch.loss) for epoch in epochs],
        f"held-out {of}": [(epoch.number, epoch.held_out_loss or 0.0) for epoch in epochs],
    }
    return curves(theme, title, "epoch", series)


def overlaid(
    theme: Theme,
    names: tuple[str, str],
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Figure:
    """A panel for each pair of curves, by title, the second one thin on top of the first."""
    columns = min(4, len(series))
    rows = math.ceil(len(series) / columns)
    figure = _figure(theme, 2.4 * columns, 0.4 + 1.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(series) :]:
        axes.set_visible(False)
    for axes, (title, pair) in zip(panels.flat, series.items(), strict=False):
        _quiet(axes, theme)
        for curve, colour, width in zip(pair, (theme.ours, theme.loss), (2.4, 0.9), strict=True):
            axes.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=width)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.set_title(title, color=theme.ink, fontsize=9, loc="left")
    figure.legend(
        panels.flat[0].get_lines(),
        names,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=9,
    )
    return figure
