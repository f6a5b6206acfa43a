"""``pydl demo``."""

from pathlib import Path
from typing import Annotated

import typer

from pydl_cli.run import perform


def demo(
    output: Annotated[Path, typer.Option(help="Where the page and the plots go.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Times through the training images.")] = 30,
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
    """Train LeNet-5 on handwritten digits, check and time its operators, and show it all on one
    page.

    Exit status 1 where fewer than 97 % of the held-out digits are read correctly, or an operator is
    wrong.
    """
    perform("digits", output=output, epochs=epochs, seed=seed, backend=backend, threads=threads)
