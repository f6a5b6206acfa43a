"""``pydl train ...``."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from pydl.models import CharLM

app = typer.Typer(help="Train a network on real data that is already here.", no_args_is_help=True)

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
    from pydl.data import text as texts
    from pydl.models import CharLM
    from pydl.recipes import char_lm as recipe
    from pydl_cli.parsing import device_of

    device = device_of(backend)  # says so where there is no GPU for it
    console = Console(highlight=False, soft_wrap=True)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    size = len(texts.ALPHABET)
    model = CharLM(size, cell.value, hidden=hidden, reset_before=reset_before).to(device)
    text = texts.load()
    console.print(
        f"{len(text.train):,} characters to learn from, {len(text.held_out):,} held out, "
        f"{size} different ones"
    )
    with use_backend(backend):
        if not reset_before:  # torch.nn has none
            apart = recipe.difference_from_stock(model, text.train, steps=_TWIN_STEPS, seed=seed)
            console.print(
                f"The first {_TWIN_STEPS} steps beside the same model on torch.nn: losses at most "
                f"{apart:.1e} bits apart"
            )
        _learn(console, model, text.train, steps, seed)
        bits = recipe.bits_per_character(model, text.held_out)
    console.print(
        f"{bits:.3f} bits per character on the files held out; the target is {recipe.TARGET}"
    )
    if bits >= recipe.TARGET:
        raise typer.Exit(1)


def _learn(
    console: "Console", model: "CharLM", text: "torch.Tensor", steps: int, seed: int
) -> None:
    """Trains and shows what the model writes on the way."""
    from rich.rule import Rule
    from rich.text import Text

    from pydl.recipes import char_lm as recipe
    from pydl.train import Step

    shown = {max(1, round(part * steps)): title for part, title in _SAMPLES.items()}

    def show(step: Step) -> None:
        if step.number in shown:
            title = f"{shown[step.number]}: step {step.number}, {step.loss:.2f} bits"
            written = recipe.write(model, "def ", _SAMPLE_LENGTH, seed=seed)
            # All at once, on a line of its own, for the progress bar is on the current one.
            console.print("", Rule(title, align="left"), Text(written), sep="\n")

    history = recipe.train(model, text, steps=steps, seed=seed, on_step=show)
    console.rule(align="left")
    console.print(f"{steps} steps in {history.epochs[-1].seconds:.0f} s")
