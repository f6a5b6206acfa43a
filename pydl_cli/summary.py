"""``pydl summary``."""

from typing import Annotated

import typer

from pydl_cli.parsing import sizes_of


def _shape(text: str) -> tuple[int, ...]:
    """``1x28x28`` or ``1,28,28`` to numbers.

    Raises:
        ValueError: it is neither.
    """
    shape = sizes_of(text)
    if len(shape) != 3:
        raise ValueError(
            f"--input must be channels x height x width, such as 3x224x224, got {text!r}"
        )
    return shape


def summary(
    name: Annotated[
        str | None, typer.Argument(help="An architecture; without one, they are listed.")
    ] = None,
    input: Annotated[
        str | None, typer.Option(help="Channels x height x width, if not the usual.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Images at once; operations are counted for all of them.")
    ] = 1,
) -> None:
    """Show a network layer by layer: shapes, weights with and without biases, operations."""
    import torch
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from pydl import models

    console = Console()
    if name is None:
        table = Table("name", "input", "what", "source")
        for model in models.MODELS.values():
            table.add_row(model.name, _joined(model.input), model.about, model.source)
        console.print(table)
        return
    model = models.find(name)
    shape = model.input if input is None else _shape(input)
    if shape[0] != model.input[0]:
        raise ValueError(f"{name} takes {model.input[0]} channels, got --input {_joined(shape)}")
    with torch.device("meta"):
        network = model.build()
    rows = models.summarize(network, (batch, *shape))

    console = Console(width=None if console.is_terminal else 120)
    table = Table(
        box=box.SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True, header_style="bold"
    )
    total = [
        sum(getattr(row, field) for row in rows)
        for field in ("weights", "parameters", "multiply_adds")
    ]
    uncounted = [row.name for row in rows if row.operations is None]
    operations = sum(row.operations or 0 for row in rows)
    table.add_column("layer", "total", no_wrap=True)
    if console.width >= 110:
        table.add_column("kind", no_wrap=True)
    table.add_column("output", no_wrap=True)
    for title, figure in zip(
        ("weights", "+ biases", "mult-adds", "operations"), (*total, operations), strict=True
    ):
        table.add_column(title, f"{figure:,}", justify="right", no_wrap=True)
    for row in rows:
        figures = (row.weights, row.parameters, row.multiply_adds, row.operations)
        said = ["?" if figure is None else f"{figure:,}" if figure else "" for figure in figures]
        kind = [row.kind] if console.width >= 110 else []
        table.add_row(row.name, *kind, _joined(row.output_shape[1:]), *said)
    console.print(f"[bold]{model.name}[/]: {model.about}. {model.source}.", highlight=False)
    console.print(f"Input {_joined(shape)}, batch of {batch}.", highlight=False)
    console.print(table)
    console.print(
        "A multiply-add is two operations; comparisons (pools, ReLU) count as operations, "
        "dropout as none."
    )
    if uncounted:
        console.print(f"Operations of {', '.join(uncounted)} are not counted.")


def _joined(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
