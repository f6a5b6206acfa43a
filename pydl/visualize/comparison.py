"""Networks side by side: published accuracy against operations and size, and the error rates of a
challenge by the year."""

import re
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pydl.models.compared import Compared
from pydl.visualize.palette import Theme
from pydl.visualize.plots import _figure, _quiet

# Whose names in the chart would lie on another's.
_RAISED = ("googlenet", "resnet50", "resnet101", "squeezenet1_0", "efficientnet_b7")


def comparison(
    theme: Theme, networks: Sequence[Compared], errors: Sequence[tuple[str, int, float]]
) -> Figure:
    """Accuracies of ``networks`` on the left; on the right ``errors``, each a name, a year and a
    percentage."""
    figure = _figure(theme, 13, 6.5)
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    for axes in (left, right):
        _quiet(axes, theme)
    _bubbles(left, networks, theme)
    _bars(right, errors, theme)
    return figure


def _bubbles(axes: Axes, networks: Sequence[Compared], theme: Theme) -> None:
    """Accuracy by operations, a bubble's area the number of parameters (Canziani, Paszke,
    Culurciello 2016, An Analysis of Deep Neural Network Models for Practical Applications)."""
    families: dict[str, list[Compared]] = {}  # which share a colour, by the letters they begin with
    for network in networks:
        families.setdefault(re.split(r"[^a-z]", network.name)[0], []).append(network)
    colours = matplotlib.colormaps["tab20"]
    for number, own in enumerate(families.values()):
        axes.scatter(
            [network.multiply_adds / 1e9 for network in own],
            [network.score for network in own],
            [8 * network.parameters / 1e6 for network in own],
            color=colours(number % 20),
            alpha=0.45,
            linewidths=0.5,
            edgecolors=theme.ink,
        )
    for network in networks:
        axes.annotate(
            network.name.removesuffix("-torchvision"),
            (network.multiply_adds / 1e9, network.score),
            xytext=(5, 6 if network.name in _RAISED else -3),
            textcoords="offset points",
            fontsize=7,
            color=theme.ink,
        )
    axes.set_xscale("log")
    axes.set_xlabel("multiply-adds of one image, in 10^9", color=theme.faint)
    axes.set_ylabel("top-1 accuracy, percent", color=theme.faint)
    axes.set_title(
        "ImageNet, one crop (torchvision's figures); areas: parameters",
        color=theme.ink,
        fontsize=11,
        loc="left",
    )
    axes.margins(0.08)


def _bars(axes: Axes, errors: Sequence[tuple[str, int, float]], theme: Theme) -> None:
    names = [f"{name}, {year}" for name, year, _ in errors]
    bars = axes.barh(names, [error for *_, error in errors], color=theme.ours, alpha=0.8)
    axes.bar_label(bars, [f"{error:g}" for *_, error in errors], padding=3, color=theme.ink)
    axes.invert_yaxis()
    axes.set_xlabel("top-5 error, percent", color=theme.faint)
    axes.set_title("ILSVRC, as the lectures give it", color=theme.ink, fontsize=11, loc="left")
    axes.margins(x=0.15)
