"""``pydl compare``."""

from pathlib import Path
from typing import Annotated

import typer

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
    networks = compared(models.MODELS.values())
    console = Console(highlight=False)
    table = Table("network", title="ImageNet", title_justify="left")
    for title in ("top-1", "multiply-adds", "parameters"):
        table.add_column(title, justify="right", no_wrap=True)
    for network in sorted(networks, key=lambda network: network.multiply_adds):
        table.add_row(
            network.name,
            f"{network.top1:.1f} %",
            f"{network.multiply_adds / 1e9:.3f} G",
            f"{network.parameters / 1e6:.1f} M",
        )
    console.print(table)
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
    console.print("As the lectures give them: all of five guesses wrong.", soft_wrap=True)
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
