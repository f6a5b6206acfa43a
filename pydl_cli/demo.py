"""``pydl demo``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pydl.visualize.operators import OperatorRow

TARGET = 0.97  # of the held-out digits


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
    from rich.console import Console

    from pydl.data.extras import require

    require("sklearn", "matplotlib")
    import torch

    from pydl import models
    from pydl.backends import use_backend
    from pydl.data import digits
    from pydl.digits import report, training
    from pydl.visualize import operators
    from pydl_cli.parsing import device_of

    console = Console()
    serving = use_backend(backend)
    device = torch.device(device_of(backend))
    # Before the training, so that no training is wasted.
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise PermissionError(f"--output {output} cannot be written to")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    split = digits.load(seed)
    model = models.lenet5().to(device)
    with serving:
        history = training.train(model, split, epochs=epochs, seed=seed)
        last = history[-1]
        accuracy, held_out = last.held_out_accuracy or 0.0, len(split.held_out)
        console.print(
            f"{100 * accuracy:.2f} % of the held-out digits read correctly "
            f"({round(accuracy * held_out)} of {held_out}), trained in {last.seconds:.1f} s"
        )
        console.print(
            "Holding every operator to the float64 reference, and timing it against PyTorch ..."
        )
        batch = split.held_out.tensors[0][:32].to(device)
        checked = operators.examine(model, batch)
        layers = models.summarize(model, (1, 1, digits.SIDE, digits.SIDE))
    _show(console, checked)
    results = report.Results(model, split, history, checked, layers, TARGET, backend, seed, device)
    console.print(f"Open {report.write(results, output)}", soft_wrap=True)

    wrong = [row.layer for row in checked if not row.passed]
    if wrong:
        console.print(
            f"[bold red]The operators of {', '.join(wrong)} deviate from the reference.[/]"
        )
    if accuracy < TARGET:
        said = f"{100 * accuracy:.1f} % of the held-out digits, the target is {100 * TARGET:.0f} %."
        console.print(f"[bold red]The network reads only {said}[/]")
    if wrong or accuracy < TARGET:
        raise typer.Exit(1)


def _show(console: "Console", rows: "list[OperatorRow]") -> None:
    """The operators as a table in the terminal."""
    from rich.table import Table

    from pydl.visualize.operators import PASSES

    table = Table(
        "layer",
        "input",
        "backend",
        "float64",
        title="Checked, and times as fast as PyTorch",
        title_justify="left",
    )
    for name in PASSES.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        mark = "[green]within[/]" if row.passed else "[bold red]outside[/]"
        ratios = [f"{row.ratio(kind):.2f}x" for kind in PASSES]
        table.add_row(row.layer, "x".join(map(str, row.call.input)), row.backend, mark, *ratios)
    console.print(table)
