"""``pydl train ...``."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from pydl.models.char_lm import CharLM
    from pydl.text.dataset import Text

app = typer.Typer(help="Train a network on real data that is already here.", no_args_is_help=True)

TARGET = 2.6  # bits per character, on files that were held out
_TWIN_STEPS = 10
# Where the model shows what it writes: after the first steps, and at these parts of the way.
_SAMPLES = {0.0: "At first", 0.05: "Train more", 0.3: "Train more", 1.0: "At the end"}
_SAMPLE_LENGTH = 240


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
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Of the first weights and the order of the text."),
    ] = 0,
    backend: Annotated[
        str, typer.Option(help="Who computes: auto, reference, aten, cpu, triton or cuda.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Learn to write Python from the standard library's own source, character by character.

    Exit status 1 where files that were held out take 2.6 bits per character or more.
    """
    import torch
    from rich.console import Console

    from pydl.backends import use_backend
    from pydl.models.char_lm import CharLM
    from pydl.text import dataset, training
    from pydl_cli.parsing import device_of

    device_of(backend)  # says so where there is no GPU for it
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(threads)
    text = dataset.load()
    console.print(
        f"{len(text.train):,} characters to learn from, {len(text.held_out):,} held out, "
        f"{len(dataset.ALPHABET)} different ones"
    )

    def model() -> "CharLM":
        torch.manual_seed(seed)
        size = len(dataset.ALPHABET)
        return CharLM(size, cell.value, hidden=hidden, reset_before=reset_before)

    with use_backend(backend):
        if not reset_before:
            _compare(console, model(), text, cell, hidden, seed)
        learner = model()
        _learn(console, learner, text, steps, seed)
        bits = training.bits_per_character(learner, text.held_out)
    console.print(f"{bits:.3f} bits per character on the files held out; the target is {TARGET}")
    if bits >= TARGET:
        raise typer.Exit(1)


def _compare(
    console: "Console", ours: "CharLM", text: "Text", cell: Cell, hidden: int, seed: int
) -> None:
    """Trains a few steps beside the same model on ``torch.nn`` and says how far the losses come
    apart."""
    import torch

    from pydl.models.char_lm import CharLM
    from pydl.text import dataset, training

    twin = CharLM(len(dataset.ALPHABET), cell.value, hidden=hidden, layers_of=torch.nn)
    twin.load_state_dict(ours.state_dict())
    pairs = zip(
        training.train(ours, text, steps=_TWIN_STEPS, seed=seed),
        training.train(twin, text, steps=_TWIN_STEPS, seed=seed, ours=False),
        strict=True,
    )
    apart = max(abs(a.bits - b.bits) for a, b in pairs)
    console.print(
        f"The first {_TWIN_STEPS} steps beside the same model on torch.nn: losses at most "
        f"{apart:.1e} bits apart"
    )


def _learn(console: "Console", model: "CharLM", text: "Text", steps: int, seed: int) -> None:
    """Trains with a progress bar and shows what the model writes on the way."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pydl.text import training

    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[bits]} bits per character"),
        TimeElapsedColumn(),
    )
    shown = {max(1, round(part * steps)): title for part, title in _SAMPLES.items()}
    recent: list[float] = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, bits="  - ")
        for step in training.train(model, text, steps=steps, seed=seed):
            recent = [*recent[-49:], step.bits]
            progress.update(task, advance=1, bits=f"{sum(recent) / len(recent):.2f}")
            if step.number in shown:
                title = f"{shown[step.number]}: step {step.number}, {step.bits:.2f} bits"
                progress.console.rule(title, align="left")
                written = training.write(model, "def ", _SAMPLE_LENGTH, seed=seed)
                progress.console.print(written, markup=False, soft_wrap=True)
    console.rule(align="left")
    console.print(f"{steps} steps in {step.seconds:.0f} s")
