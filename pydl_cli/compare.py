"""``pydl compare``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from pydl.visualize.palette import Theme

# Images of ImageNet's challenge (ILSVRC) for which five guesses were all wrong, in percent, as the
# lectures give them.
ERRORS = (
    ("before", 2011, 26.0),
    ("AlexNet", 2012, 15.4),
    ("ZFNet", 2013, 11.2),
    ("VGG", 2014, 7.3),
    ("GoogLeNet", 2014, 6.7),
    ("ResNet", 2015, 3.6),
)
# Whose names in the chart would lie on another's.
_RAISED = ("googlenet", "resnet50", "resnet101", "squeezenet1_0", "efficientnet_b7")


@dataclass(frozen=True)
class Point:
    """A network in the chart, or in a table."""

    name: str
    score: float  # percent, published
    multiply_adds: int  # on one image
    parameters: int  # that take part in a prediction


def compare(
    output: Annotated[
        Path | None, typer.Option(help="A file for the chart, such as compare.png.")
    ] = None,
) -> None:
    """Set networks side by side: published accuracy, operations and size.

    Accuracies are torchvision's; operations and parameters are counted here.
    """
    from rich.console import Console
    from rich.table import Table

    if output is not None:
        _check(output)
    points = _points("top1")
    console = Console(highlight=False)
    console.print(_table("ImageNet", "top-1", points))
    console.print(
        "top-1: of the 50,000 validation images, one crop each, as torchvision documents it of its "
        "IMAGENET1K_V1 weights. The rest is counted here, of one image, without auxiliary heads.\n",
        soft_wrap=True,
    )
    table = Table("network", "year", title="ILSVRC", title_justify="left")
    table.add_column("top-5 error", justify="right")
    for name, year, error in ERRORS:
        table.add_row(name, str(year), f"{error:g} %")
    console.print(table)
    console.print("As the lectures give them: all of five guesses wrong.\n", soft_wrap=True)
    console.print(_table("COCO, the classes of VOC", "mean IoU", _points("mean_iou")))
    console.print(
        "mean IoU: of the pixels of 21 classes in COCO's validation images, as torchvision "
        "documents it of its COCO_WITH_VOC_LABELS_V1 weights. The rest is counted here, of an "
        "image of 520x520, with both heads.",
        soft_wrap=True,
    )
    if output is not None:
        _draw(points, output)
        console.print(f"The chart is in {output}", soft_wrap=True)


def _check(output: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("matplotlib missing: pip install 'pydl-kernels[plots]'") from error
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--output ends in .png, .svg or .pdf, got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent}")


def _table(title: str, what: str, points: Sequence[Point]) -> "Table":
    from rich.table import Table

    table = Table("network", title=title, title_justify="left")
    for column in (what, "multiply-adds", "parameters"):
        table.add_column(column, justify="right", no_wrap=True)
    for point in sorted(points, key=lambda point: point.multiply_adds):
        table.add_row(
            point.name,
            f"{point.score:.1f} %",
            f"{point.multiply_adds / 1e9:.3f} G",
            f"{point.parameters / 1e6:.1f} M",
        )
    return table


def _points(figure: str) -> list[Point]:
    """The networks of which that figure was published, a name in the table of networks."""
    from pydl import models
    from pydl.models.meta import hollow

    points = []
    for model in models.MODELS.values():
        if getattr(model, figure) is None:
            continue
        rows = models.summarize(hollow(model.build), (1, *model.input))
        points.append(
            Point(
                model.name,
                getattr(model, figure),
                sum(row.multiply_adds for row in rows),
                sum(row.parameters for row in rows),
            )
        )
    return points


def _draw(points: Sequence[Point], output: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    from pydl.visualize.palette import LIGHT

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    figure = Figure(figsize=(13, 6.5), facecolor=LIGHT.paper, layout=layout)
    left, right = figure.subplots(1, 2, width_ratios=(3, 1))
    for axes in (left, right):
        axes.set_facecolor(LIGHT.paper)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(LIGHT.line)
        axes.tick_params(colors=LIGHT.faint, labelcolor=LIGHT.faint)
    _bubbles(left, points, LIGHT)
    _bars(right, LIGHT)
    figure.savefig(output, dpi=120)


def _bubbles(axes: "Axes", points: Sequence[Point], theme: "Theme") -> None:
    """Accuracy by operations, a bubble's area the number of parameters (Canziani, Paszke,
    Culurciello 2016, An Analysis of Deep Neural Network Models for Practical Applications)."""
    import matplotlib

    families: dict[str, list[Point]] = {}  # which share a colour, by the letters they begin with
    for point in points:
        families.setdefault(re.split(r"[^a-z]", point.name)[0], []).append(point)
    colours = matplotlib.colormaps["tab20"]
    for number, own in enumerate(families.values()):
        axes.scatter(
            [point.multiply_adds / 1e9 for point in own],
            [point.score for point in own],
            [8 * point.parameters / 1e6 for point in own],
            color=colours(number % 20),
            alpha=0.45,
            linewidths=0.5,
            edgecolors=theme.ink,
        )
    for point in points:
        axes.annotate(
            point.name.removesuffix("-torchvision"),
            (point.multiply_adds / 1e9, point.score),
            xytext=(5, 6 if point.name in _RAISED else -3),
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


def _bars(axes: "Axes", theme: "Theme") -> None:
    names = [f"{name}, {year}" for name, year, _ in ERRORS]
    bars = axes.barh(names, [error for *_, error in ERRORS], color=theme.ours, alpha=0.8)
    axes.bar_label(bars, [f"{error:g}" for *_, error in ERRORS], padding=3, color=theme.ink)
    axes.invert_yaxis()
    axes.set_xlabel("top-5 error, percent", color=theme.faint)
    axes.set_title("ILSVRC, as the lectures give it", color=theme.ink, fontsize=11, loc="left")
    axes.margins(x=0.15)
