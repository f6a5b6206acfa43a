"""``pydl summary``."""

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from pydl_cli.parsing import cuda_missing, sizes_of

if TYPE_CHECKING:
    from torch import nn

    from pydl.models import LayerRow

_GAP = "  "


def _shape(text: str, usual: tuple[int, ...]) -> tuple[int, ...]:
    """``1x28x28`` or ``1,28,28`` to as many numbers as there usually are.

    Raises:
        ValueError: it is neither.
    """
    shape = sizes_of(text)
    if len(shape) != len(usual):
        axes = "channels x height x width"
        if len(usual) == 4:
            axes = "channels x frames or slices x height x width"
        if len(usual) < 3:
            axes = "the steps of a sequence" + " x the characters of a word" * (len(usual) - 1)
        raise ValueError(f"--input must be {axes}, such as {_joined(usual)}, got {text!r}")
    return shape


def summary(
    name: Annotated[
        str | None, typer.Argument(help="An architecture; without one, they are listed.")
    ] = None,
    input: Annotated[
        str | None,
        typer.Option(
            help="Channels x height x width, if not the usual; of clips and volumes, frames or "
            "slices behind the channels; of a sequence, its steps."
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(
            min=1, help="Images or sequences at once; operations are counted for all of them."
        ),
    ] = 1,
) -> None:
    """Show a network layer by layer: shapes, receptive field, who serves each layer here, weights
    with and without biases, operations."""
    from rich.console import Console
    from rich.table import Table

    from pydl import models
    from pydl.models.meta import hollow

    console = Console()
    if name is None:
        table = Table()
        table.add_column("name", no_wrap=True)
        for column in ("input", "what", "source"):
            table.add_column(column)
        for model in models.MODELS.values():
            table.add_row(model.name, _joined(model.input), model.about, model.source)
        console.print(table)
        return
    model = models.find(name)
    shape = model.input if input is None else _shape(input, model.input)
    sequences = len(model.input) < 3
    if shape[0] != model.input[0] and not sequences:
        raise ValueError(f"{name} takes {model.input[0]} channels, got --input {_joined(shape)}")
    with _no_collection():
        network = hollow(model.build)
        rows = models.summarize(network, model.inputs(batch, shape, device="meta"))
        fields = _fields(network, (batch, *shape), rows)
        device = "cpu" if cuda_missing() else "cuda"
        servers = _servers(network, rows, device)

    head = ("layer", "kind", "output", "sees", "by")
    figures_head = ("weights", "+ biases", "mult-adds", "operations")
    figures = [(row.weights, row.parameters, row.multiply_adds, row.operations) for row in rows]
    totals = [sum(one or 0 for one in column) for column in zip(*figures, strict=True)]
    first = 0 if sequences else 1  # without the batch, where that comes first in all
    lines = [
        (row.name, row.kind, _joined(row.output_shape[first:]), field, server, *map(_said, numbers))
        for row, field, server, numbers in zip(rows, fields, servers, figures, strict=True)
    ]
    last = ("total", "", "", "", "", *(f"{total:,}" for total in totals))
    text = _columns([(*head, *figures_head), *lines, last], left=(0, 1, 2, 4))
    console.print(f"[bold]{model.name}[/]: {model.about}. {model.source}.", highlight=False)
    console.print(f"Input {_joined(shape)}, batch of {batch}.\n", highlight=False)
    typer.echo(typer.style(text[0], bold=True))
    typer.echo("\n".join(text[1:-1]))
    typer.echo(typer.style(text[-1], bold=True))
    seen = f"sees: the receptive field, in {_units(shape)}; all: the whole input, of whatever size."
    if sequences:
        seen = "output: with the axis of the batch, behind that of the steps or before all others."
    console.print(
        f"\n{seen}\n"
        f"by: who serves the layer here, on {device}, under auto, in inference; aten is PyTorch's "
        "own operator. "
        "Blank: nothing is computed.\n"
        "A multiply-add is two operations; comparisons (pools, ReLU) count as operations, "
        "dropout as none.",
        highlight=False,
    )
    unknown = [row.name for row, field in zip(rows, fields, strict=True) if not field]
    if unknown and not sequences:
        console.print(
            f"What {_some(unknown)} see is not known: what the network does before them is not "
            "followed.",
            highlight=False,
        )
    uncounted = [row.name for row in rows if row.operations is None]
    if uncounted:
        console.print(f"Operations of {', '.join(uncounted)} are not counted.")


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's garbage collector, which would look through thousands of layers again and
    again as they are made, a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _fields(network: "nn.Module", shape: tuple[int, ...], rows: "Sequence[LayerRow]") -> list[str]:
    """What the units of each layer see, in words, of clips and volumes in frames or slices too;
    nothing where it is not known."""
    from pydl.models.receptive import Whole, receptive_fields

    deep = receptive_fields(network, shape, axis=-3) if len(shape) == 5 else {}
    times: Counter[str] = Counter()
    said = []
    for row in rows:
        times[row.name] += 1
        key = row.name if times[row.name] == 1 else f"{row.name}#{times[row.name]}"
        fields = [one for one in (deep.get(key), row.sees) if one is not None]
        seen = ["all" if isinstance(one, Whole) else f"{one.size:,}" for one in fields]
        said.append("all" if set(seen) == {"all"} else "x".join(seen))
    return said


def _servers(network: "nn.Module", rows: "Sequence[LayerRow]", device: str) -> list[str]:
    """Who serves each layer on this device; nothing for one that computes nothing."""
    from pydl.nn.layer import Layer
    from pydl_cli.questions import served

    layers = dict(network.named_modules())
    known: dict[tuple, str] = {}
    for row in rows:
        kind = row.kind, row.arguments, row.input_shape
        if kind in known:
            continue
        if row.operations == 0:
            known[kind] = ""
        elif isinstance(layers[row.name], Layer):
            known[kind] = served(layers[row.name], row.input_shape, device)
        else:
            known[kind] = "aten"
    return [known[row.kind, row.arguments, row.input_shape] for row in rows]


def _columns(rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Lines of columns as wide as they must be. (Rich takes seconds for thousands of rows.)"""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        _GAP.join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _said(figure: int | None) -> str:
    return "?" if figure is None else f"{figure:,}" if figure else ""


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} others"


def _units(shape: tuple[int, ...]) -> str:
    """Of a receptive field, which ``_fields`` gives for an input of this shape."""
    width = "pixels along the width"
    return width if len(shape) < 4 else f"frames or slices x {width}"


def _joined(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
