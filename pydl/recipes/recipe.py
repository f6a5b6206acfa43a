"""What the table of recipes says of each, and what one may be told."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pydl.asked import use_backend
from pydl.data.extras import require

if TYPE_CHECKING:
    from rich.console import Console

    from pydl.train import Epoch


@dataclass(frozen=True)
class Options:
    """How a recipe is run.

    Args:
        output: the folder that its page and plots go to, made where it is missing.
        epochs: times through the training data; None for as many as the recipe says.
        seed: of everything that is drawn at random.
        backend: who computes.
        device: where.
        data: a folder of the user's own, for a recipe that takes one.
        text: a text file of the user's own, or a folder of such, for a recipe that takes one.

    Raises:
        ValueError: there is no such backend.
    """

    output: Path
    epochs: int | None = None
    seed: int = 0
    backend: str = "auto"
    device: torch.device | str = "cpu"
    data: Path | None = None
    text: Path | None = None

    def __post_init__(self) -> None:
        use_backend(self.backend)  # which knows the names


@dataclass(frozen=True)
class Recipe:
    """One result: data, a network, its training, what it is held to, and a page that shows it.

    ``needs`` are the modules of extras without which it does not run. ``steps`` says on a console
    what it finds, and returns whether the result is what it should be. With ``of_data`` it is for
    a folder of the user's own, and needs one.
    """

    name: str
    shows: str
    needs: tuple[str, ...]
    steps: "Callable[[Options, Console], bool]"
    of_data: bool = False
    of_text: bool = False

    def run(self, options: Options, console: "Console") -> bool:
        """Does it; whether the result is what it should be.

        Raises:
            MissingExtraError: an optional package is not installed.
            OSError: the output cannot be written.
            ValueError: there are no data of the user's, or there should be none.
        """
        require(*self.needs)
        if self.of_data and options.data is None:
            raise ValueError(f"{self.name} is for data of your own: --data FOLDER")
        if options.data is not None and not self.of_data:
            raise ValueError(f"{self.name} has data of its own, and takes no --data")
        if options.text is not None and not self.of_text:
            raise ValueError(f"{self.name} is not about text, and takes no --text")
        # Before the training, so that no training is wasted.
        options.output.mkdir(parents=True, exist_ok=True)
        if not os.access(options.output, os.W_OK):
            raise PermissionError(f"the output {options.output} cannot be written to")
        return self.steps(options, console)


def losses(console: "Console") -> "Callable[[Epoch], None]":
    """Says the losses of each epoch, of training and of held-out data."""

    def say(epoch: "Epoch") -> None:
        console.print(
            f"epoch {epoch.number}: loss {epoch.loss:.4f}, held out {epoch.held_out_loss:.4f}, "
            f"{epoch.seconds:.0f} s",
            soft_wrap=True,
        )

    return say


def publish(html: str, options: Options, console: "Console") -> None:
    """Writes a recipe's page and says where it is."""
    file = options.output / "index.html"
    file.write_text(html, encoding="utf-8")
    console.print(f"Open {file}", soft_wrap=True)
