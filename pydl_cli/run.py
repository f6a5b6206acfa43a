"""``pydl run``."""

from pathlib import Path
from typing import Annotated

import typer


def perform(
    name: str,
    *,
    output: Path,
    epochs: int | None,
    seed: int,
    backend: str,
    threads: int,
    data: Path | None = None,
    text: Path | None = None,
) -> None:
    """Does a recipe; exit status 1 where the result is not what it should be."""
    import torch
    from rich.console import Console

    from pydl.recipes import Options, find
    from pydl_cli.parsing import device_of

    recipe = find(name)
    options = Options(output, epochs, seed, backend, device_of(backend), data, text)
    torch.set_num_threads(threads)
    if not recipe.run(options, Console()):
        raise typer.Exit(1)


def run(
    name: Annotated[
        str | None, typer.Argument(help="A recipe; without one, they are listed.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where page and plots go, if not to shown/NAME.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Times through the data, if not as the recipe says.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of everything drawn at random.")
    ] = 0,
    backend: Annotated[
        str, typer.Option(help="Who computes: auto, reference, aten, cpu, triton or cuda.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    data: Annotated[
        Path | None, typer.Option(help="A folder of your own, for a recipe that takes one.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file of your own, or a folder of *.txt, for one about text."),
    ] = None,
) -> None:
    """Train a network on real data, hold it to what it should reach, and show it all on one page.

    Exit status 1 where it does not reach that.
    """
    if name is not None:
        where = output or Path("shown") / name
        perform(
            name,
            output=where,
            epochs=epochs,
            seed=seed,
            backend=backend,
            threads=threads,
            data=data,
            text=text,
        )
        return
    from rich.console import Console
    from rich.table import Table

    from pydl.recipes import RECIPES

    table = Table("name", "shows")
    for recipe in RECIPES.values():
        table.add_row(recipe.name, recipe.shows)
    Console().print(table)
