"""``pydl compare``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pydl.models.compared import Compared

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

    from pydl import models
    from pydl.models.compared import compared

    if output is not None:
        _check(output)
    networks = compared(models.MODELS.values(), "top1")
    console = Console(highlight=False)
    console.print(_table("ImageNet", "top-1", networks))
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
    segmenting = compared(models.MODELS.values(), "mean_iou")
    console.print(_table("COCO, the classes of VOC", "mean IoU", segmenting))
    console.print(
        "mean IoU: of the pixels of 21 classes in COCO's validation images, as torchvision "
        "documents it of its COCO_WITH_VOC_LABELS_V1 weights. The rest is counted here, of an "
        "image of 520x520, with both heads.",
        soft_wrap=True,
    )
    if output is not None:
        from pydl.visualize.comparison import comparison
        from pydl.visualize.palette import LIGHT

        comparison(LIGHT, networks, ERRORS).savefig(output, dpi=120)
        console.print(f"The chart is in {output}", soft_wrap=True)


def _check(output: Path) -> None:
    from pydl.data.extras import require

    require("matplotlib")
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--output ends in .png, .svg or .pdf, got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {output.parent}")


def _table(title: str, what: str, networks: "Sequence[Compared]") -> "Table":
    from rich.table import Table

    table = Table("network", title=title, title_justify="left")
    for column in (what, "multiply-adds", "parameters"):
        table.add_column(column, justify="right", no_wrap=True)
    for network in sorted(networks, key=lambda network: network.multiply_adds):
        table.add_row(
            network.name,
            f"{network.score:.1f} %",
            f"{network.multiply_adds / 1e9:.3f} G",
            f"{network.parameters / 1e6:.1f} M",
        )
    return table
