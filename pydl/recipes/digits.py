"""LeNet-5 reads handwritten digits: trained, its operators checked and timed, all on one page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from pydl import models
from pydl.asked import use_backend
from pydl.data import Split, digits
from pydl.recipes.baselines import BASELINES
from pydl.recipes.recipe import Options, Recipe
from pydl.train import Epoch, Settings, fit, schedules
from pydl.train.augment import Affine
from pydl.visualize import operators

if TYPE_CHECKING:
    from rich.console import Console

    from pydl.recipes import digits_page

TARGET = 0.97  # of the held-out digits
EPOCHS = 16
SECONDS = 0.2  # of measuring each pass of each operator
# A digit that is turned, moved and scaled a little stays the digit that it is.
DISTORTION = Affine(degrees=12, shift=0.05, scale=0.1)


def train(model: nn.Module, split: Split, *, epochs: int, seed: int) -> Sequence[Epoch]:
    """SGD with Nesterov momentum and a rate that rises to 0.03 and falls to nearly 0.

    The held-out images decide nothing: the number of epochs is fixed beforehand, and the last
    weights are kept.

    Args:
        model: from (N, 1, 32, 32) to (N, 10) scores; trained in place.
        split: the digits.
        epochs: times through the training images.
        seed: of the order and the distortion of the images.
    """
    settings = Settings(
        batch=32, seed=seed, rate=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return fit(
        model,
        split.train,
        epochs=epochs,
        held_out=split.held_out,
        schedule=schedules.one_cycle(warm_up=0.2),
        augment=DISTORTION,
        settings=settings,
    ).epochs


def learn(options: Options, console: "Console") -> "digits_page.Results":
    """Trains LeNet-5 and what it is compared with, and checks and times its operators."""
    from pydl.recipes import digits_page  # which imports matplotlib

    device = torch.device(options.device)
    torch.manual_seed(options.seed)
    split = digits.load(options.seed)
    model = models.lenet5().to(device)
    with use_backend(options.backend):
        history = train(model, split, epochs=options.epochs or EPOCHS, seed=options.seed)
        last = history[-1]
        accuracy, held_out = last.held_out_accuracy or 0.0, len(split.held_out)
        console.print(
            f"LeNet-5 reads {100 * accuracy:.2f} % of the held-out digits "
            f"({round(accuracy * held_out)} of {held_out}) after {last.seconds:.1f} s of training"
        )
        baselines = {name: learned(split) for name, learned in BASELINES.items()}
        said = ", ".join(f"{name} {100 * part:.2f} %" for name, part in baselines.items())
        console.print(f"For comparison: {said}", soft_wrap=True)
        batch = split.held_out.tensors[0][:32].to(device)
        checked = operators.examine(model, batch, seconds=SECONDS)
        served = operators.servers(model, batch)
        layers = models.summarize(model, (1, *batch.shape[1:]))
    console.print(operators.listed(checked, "LeNet-5"))
    return digits_page.Results(
        model,
        split,
        history,
        baselines,
        checked,
        served,
        layers,
        TARGET,
        options.backend,
        options.seed,
        device,
    )


def good(results: "digits_page.Results", console: "Console") -> bool:
    """Whether the operators are right and the digits are read; says which are not."""
    accuracy = results.accuracy
    if accuracy < TARGET:
        said = f"{100 * accuracy:.1f} % of the held-out digits, the target is {100 * TARGET:.0f} %."
        console.print(f"[bold red]The network reads only {said}[/]")
    return operators.right(results.operators, console) and accuracy >= TARGET


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import digits_page

    results = learn(options, console)
    console.print(f"Open {digits_page.write(results, options.output)}", soft_wrap=True)
    return good(results, console)


RECIPE = Recipe(
    "digits",
    "LeNet-5 reads 97 % of the handwritten digits that were held out, and its operators are right",
    ("sklearn", "matplotlib"),
    _steps,
)
