"""Transfer learning: what a network has learned from some digits helps it to learn the others.

The lectures' five steps: take a network that was trained on much data (here LeNet-5 on the digits
0 to 4); take its last layer off; put a new one for the new classes there (5 to 9); keep the weights
of the others, fixed or not; train on the new data. Compared, by the number of new examples: weights
kept fixed (the network as an extractor of features), weights kept as a start (fine-tuning), and
fresh weights (from scratch).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import measure, models, nn
from pydl.asked import use_backend
from pydl.data import Split, digits
from pydl.recipes.digits import DISTORTION
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Settings, evaluate, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = (1, 2, 5, 10, 20, 50, 100)  # of each new class
SEEDS = 3
EPOCHS = 20  # on the old digits
STEPS = 150  # about, on the new ones, however few they are
WAYS = ("features kept fixed", "fine-tuned", "from scratch")
OLD, NEW = range(5), range(5, 10)


@dataclass(frozen=True)
class Result:
    """The mean accuracy on held-out digits 5 to 9, over the seeds."""

    examples: int  # of each class
    accuracy: dict[str, float]  # by the way


def of_classes(data: TensorDataset, classes: range) -> TensorDataset:
    """The images of these digits, whose labels count from 0."""
    images, labels = data.tensors
    wanted = (labels >= classes.start) & (labels < classes.stop)
    return TensorDataset(images[wanted], labels[wanted] - classes.start)


def few(data: TensorDataset, count: int, seed: int) -> TensorDataset:
    """So many examples of each class, drawn at random."""
    images, labels = data.tensors
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    picked = torch.cat([order[labels[order] == label][:count] for label in labels.unique()])
    return TensorDataset(images[picked], labels[picked])


def learn(model: nn.Module, data: TensorDataset, epochs: int, seed: int) -> None:
    """SGD with momentum and a rate that falls to 0, on digits that are distorted a little."""
    fit(
        model,
        data,
        epochs=epochs,
        schedule=schedules.cosine(warm_up=0.1),
        augment=DISTORTION,
        settings=Settings(batch=min(32, len(data)), seed=seed, rate=0.01),
    )


def with_new_head(model: nn.Sequential, *, fixed: bool) -> nn.Sequential:
    """A copy whose last layer is fresh; ``fixed`` says whether the others may change."""
    model = copy.deepcopy(model)
    model.requires_grad_(not fixed)
    head = model.get_submodule("fc5")
    assert isinstance(head, nn.Linear)
    model.fc5 = nn.Linear(head.in_features, len(NEW))
    return model


def compare(split: Split, seed: int, examples: Sequence[int], epochs: int) -> list[Result]:
    """The three ways at each number of examples."""
    torch.manual_seed(seed)
    teacher = models.lenet5(len(OLD))
    learn(teacher, of_classes(split.train, OLD), epochs, seed)
    new, held_out = of_classes(split.train, NEW), of_classes(split.held_out, NEW)
    results = []
    for count in examples:
        sums = dict.fromkeys(WAYS, 0.0)
        for draw in range(SEEDS):
            data = few(new, count, seed + draw)
            torch.manual_seed(seed + draw)
            students = (
                with_new_head(teacher, fixed=True),
                with_new_head(teacher, fixed=False),
                models.lenet5(len(NEW)),
            )
            steps_of_epoch = -(-len(data) // 32)
            for way, student in zip(WAYS, students, strict=True):
                learn(student, data, max(1, STEPS // steps_of_epoch), seed + draw)
                sums[way] += evaluate(student, held_out).accuracy or 0.0
        results.append(Result(count, {way: total / SEEDS for way, total in sums.items()}))
    return results


def _steps(options: Options, console: "Console") -> bool:
    from pydl.visualize import page, plots  # which import matplotlib
    from pydl.visualize.curves import curves

    split = digits.load(options.seed)
    with use_backend(options.backend):
        results = compare(split, options.seed, EXAMPLES, options.epochs or EPOCHS)
    for one in results:
        said = ", ".join(f"{way} {100 * part:.1f} %" for way, part in one.accuracy.items())
        console.print(f"{one.examples} of each: {said}")
    album = plots.Album(options.output)
    title = "Held-out digits 5 to 9 read correctly (%)"
    series = {way: [(one.examples, 100 * one.accuracy[way]) for one in results] for way in WAYS}
    image = album(
        "transfer",
        lambda theme: curves(theme, title, "examples of each new digit", series, log_x=True),
    )
    rows = [
        [str(one.examples), *(f"{100 * one.accuracy[way]:.1f}" for way in WAYS)] for one in results
    ]
    fixed, tuned, scratch = WAYS
    won = [str(one.examples) for one in results if one.accuracy[tuned] > one.accuracy[scratch]]
    better = [str(one.examples) for one in results if one.accuracy[fixed] > one.accuracy[scratch]]
    parts = [
        page.section(
            "By the number of examples",
            page.paragraph(f"""
                LeNet-5 was trained on the digits 0 to 4. Then its last layer was replaced and it
                learned 5 to 9 from a few examples of each: with all other weights fixed, with all
                free to change, and for comparison with fresh weights. Means over {SEEDS} draws of
                the examples; each was trained for about {STEPS} steps. Fine-tuning beats fresh
                weights with {", ".join(won) or "no number"} of {", ".join(map(str, EXAMPLES))}
                examples, fixed weights do with {", ".join(better) or "none"}: five digits are a
                small task to have learned from, and what tells them apart need not tell the
                others apart."""),
            page.picture(image, title),
            page.table(["examples", *WAYS], rows, numbers=(1, 2, 3)),
        )
    ]
    lead = """Weights that were learned for one task are a start for another. How good a start
        depends on how much the first task taught, and on how little there is to learn from now."""
    versions = measure.versions(torch.device(options.device))
    publish(page.page("Transfer learning", lead, parts, versions), options, console)
    means = {way: sum(one.accuracy[way] for one in results) for way in WAYS}
    return means[tuned] > means[scratch]


RECIPE = Recipe(
    "transfer",
    "LeNet-5 that knows the digits 0 to 4 learns 5 to 9 from fewer examples than a fresh one",
    ("sklearn", "matplotlib"),
    _steps,
)
