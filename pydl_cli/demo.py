"""``pydl demo``."""

from pathlib import Path
from typing import Annotated

import typer

from pydl_cli.run import perform


def demo(
    output: Annotated[Path, typer.Option(help="Where the page and the plots go.")] = Path("demo"),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times through the training images, if not 16.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Of the split, the first weights and the order of the images.",
        ),
    ] = 0,
    backend: Annotated[
        str, typer.Option(help="Who computes: auto, reference, aten, cpu, triton or cuda.")
    ] = "auto",
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads; batches are too small for more than one.")
    ] = 1,
) -> None:
    """Train LeNet-5 on handwritten digits, hold the layers of an AlexNet-shaped network to the
    float64 reference, time them against PyTorch, and show it all on one page.

    Exit status 1 where fewer than 97 % of the held-out digits are read correctly, or an operator is
    wrong.
    """
    perform("demo", output=output, epochs=epochs, seed=seed, backend=backend, threads=threads)
