"""``pydl train ...``."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pydl_cli import train_classifier

app = typer.Typer(
    help="Train a network on real data that is already here.",
    cls=train_classifier.NetworkOrCommand,
    no_args_is_help=True,
)
app.command(train_classifier.COMMAND)(train_classifier.train)


class Cell(str, Enum):
    """The recurrent layer."""

    lstm = "lstm"
    gru = "gru"
    rnn = "rnn"


@app.callback()
def _train() -> None:
    pass


@app.command("char-lm")
def char_lm(
    cell: Annotated[Cell, typer.Option(help="The recurrent layer.")] = Cell.lstm,
    reset_before: Annotated[
        bool, typer.Option("--reset-before", help="A GRU whose reset acts before the product.")
    ] = False,
    steps: Annotated[int, typer.Option(min=1, help="Updates of the weights.")] = 3000,
    hidden: Annotated[int, typer.Option(min=1, help="Size of the state.")] = 256,
    text: Annotated[
        Path | None,
        typer.Option(help="A text file, or a folder of *.txt; without one, the standard library."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Of the first weights and the order of the text."),
    ] = 0,
    backend: Annotated[
        str, typer.Option(help="Who computes: auto, reference, aten, cpu, triton or cuda.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Learn to write Python from the standard library's own source, or as a text of your own does,
    character by character.

    Exit status 1 where files of the library that were held out take 2.6 bits per character or more.
    """
    import torch
    from rich.console import Console

    from pydl.backends import use_backend
    from pydl.data import text as texts
    from pydl.models import CharLM
    from pydl.recipes import char_lm as recipe
    from pydl_cli.parsing import device_of

    device = device_of(backend)  # says so where there is no GPU for it
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    characters = len(texts.ALPHABET)
    model = CharLM(characters, cell.value, hidden=hidden, reset_before=reset_before).to(device)
    found = texts.load(text)
    target = recipe.TARGET if text is None else None
    start = "def " if text is None else texts.decode(found.held_out[:4])
    with use_backend(backend):
        learned = recipe.learn(
            model, found, console, steps=steps, seed=seed, start=start, target=target
        )
    if target is not None and learned.bits >= target:
        raise typer.Exit(1)
