"""Classifiers of the table learn to read digits, each beside its twin of torch.nn's layers.

Both begin with the same weights and see the same images in the same order, so their losses go the
same way. What a network reaches on digits that were held out is compared with a linear classifier
(logistic regression on the 64 numbers of a digit); what a step of training takes is measured in
turns, and which of its calls this package's kernels serve is observed. Networks that were made for
images of 224 pixels get fewer here, but all their maps.
"""

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pydl import measure
from pydl.data import digits
from pydl.recipes.classifiers_file import TARGET, File, Row
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.recipes.twins import Plan, beside_its_twin

if TYPE_CHECKING:
    from rich.console import Console

# Of each family one or two, the quickest to train first. Inception v3's auxiliary head needs images
# of 299 pixels.
PLANS = (
    Plan("lenet5", 32, 15, 0.03),
    Plan("stn", 32, 10, 0.01),
    Plan("shufflenet_v2_x0_5", 64, 8, 0.05),
    Plan("resnet20", 32, 3, 0.05),
    Plan("plain20", 32, 4, 0.05),
    Plan("squeezenet1_1", 64, 12, 1e-3, adam=True),
    Plan("resnet18", 32, 3, 0.02),
    Plan("densenet121", 32, 3, 0.02),
    Plan("mobilenet_v2", 64, 4, 0.05),
    Plan("googlenet", 64, 4, 0.01),
    Plan("googlenet_2014", 64, 20, 5e-4, adam=True),
    Plan("efficientnet_b0", 64, 12, 2e-3, adam=True),
    Plan("alexnet-torchvision", 64, 6, 2e-4, adam=True),
    Plan("inception_v3", 80, 18, 2e-3, adam=True, options={"aux_logits": False}),
    Plan("sppnet", 64, 8, 2e-4, adam=True),
    Plan("vgg16_bn", 32, 5, 2e-3),
)


def linear_accuracy(seed: int) -> float:
    """Of logistic regression on the same digits, as they were counted on a grid of 8x8."""
    from sklearn.linear_model import LogisticRegression

    found = digits.read(seed)
    ink, labels = found.ink.flatten(1).numpy(), found.labels.numpy()
    model = LogisticRegression(max_iter=1000).fit(ink[found.train], labels[found.train])
    return float(model.score(ink[found.held_out], labels[found.held_out]))


def run(
    plans: Sequence[Plan],
    options: Options,
    file: File,
    console: "Console",
    *,
    command: str,
    again: bool = False,
) -> list[Row]:
    """The rows of these plans; each is in the file as soon as it is found.

    Args:
        plans: of which networks.
        options: see :func:`beside_its_twin`.
        file: what it has already, for the same seed, backend, epochs and size, is not found again.
        console: is told of each.
        command: by which this runs, for the file.
        again: whether everything is found anew.

    Raises:
        ValueError: the device is no CPU, on which alone it is seen who takes how much time.
    """
    device = torch.device(options.device)
    if device.type != "cpu":
        raise ValueError(f"device must be cpu, where shares of a step are observed, got {device}")
    split = digits.load(options.seed)
    baseline = linear_accuracy(options.seed)
    facts = {
        "device": measure.device_name(device),
        "threads": str(torch.get_num_threads()),
        "cores": str(os.cpu_count()),
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        **measure.versions(device),
    }
    rows = []
    for plan in plans:
        row = file.rows.get(plan.network)
        asked = options.seed, options.backend, options.epochs or plan.epochs, plan.pixels
        if again or row is None or (row.seed, row.backend, row.epochs, row.pixels) != asked:
            file.put(*beside_its_twin(plan, split, options, baseline, facts))
            row = file.rows[plan.network]
        console.print(said(row), soft_wrap=True)
        rows.append(row)
    return rows


def said(row: Row) -> str:
    """The row in words."""
    learned = (
        f"{100 * row.accuracy:.1f} % of the held-out digits, its twin {100 * row.accuracy_twin:.1f}"
    )
    speed = f"{row.step_ms:.0f} ms a step, {row.ratio:.2f} times as fast as its twin"
    ours = f"{100 * row.share:.0f} % of it in {row.served}" if row.served else "all of it PyTorch's"
    wrong = "" if row.alike else "; [bold red]its losses are others[/]"
    return f"{row.network}: {learned}; {speed}, {ours}{wrong}"


def show(file: File, options: Options, console: "Console") -> None:
    """Writes the page of all that is in the file."""
    from pydl.recipes import classifiers_page  # which imports matplotlib

    rows = [file.rows[plan.network] for plan in PLANS if plan.network in file.rows]
    publish(classifiers_page.html(rows, file.curves, options), options, console)


def _steps(options: Options, console: "Console") -> bool:
    file = File(options.output)
    rows = run(PLANS, options, file, console, command="pydl run classifiers")
    show(file, options, console)
    return all(row.shown for row in rows)


RECIPE = Recipe(
    "classifiers",
    f"{len(PLANS)} networks, from LeNet-5 to EfficientNet, learn to read digits, step by step as "
    f"networks of torch.nn's do; which of them read {100 * TARGET:.0f} % of the held-out ones",
    ("sklearn", "matplotlib"),
    _steps,
)
