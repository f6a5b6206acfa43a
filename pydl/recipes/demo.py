"""What this package does, shown in a minute: LeNet-5 reads digits, and the layers of an
AlexNet-shaped network are held to the reference and timed against PyTorch."""

from typing import TYPE_CHECKING

import torch

from pydl.asked import use_backend
from pydl.measure import versions
from pydl.recipes import digits, showcase
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.visualize import operators

if TYPE_CHECKING:
    from rich.console import Console

    from pydl.recipes.digits_page import Results


def _steps(options: Options, console: "Console") -> bool:
    console.print("Training LeNet-5 on handwritten digits ...")
    learned = digits.learn(options, console)
    console.print("Holding an AlexNet-shaped network's layers to the reference, timing them ...")
    with use_backend(options.backend):
        shown = showcase.examine(torch.device(options.device), options.seed)
    console.print(operators.listed([*shown.rows, shown.whole], "An AlexNet-shaped network"))
    publish(_page(learned, shown, options), options, console)
    right = digits.good(learned, console)
    return operators.right(shown.rows, console) and right


def _page(learned: "Results", shown: showcase.Shown, options: Options) -> str:
    from pydl.recipes import digits_page, showcase_page
    from pydl.visualize import page, plots

    album, device = plots.Album(options.output), torch.device(options.device)
    rows = [*learned.operators, *shown.rows]
    passed = sum(row.passed for row in rows)
    figures = [
        *showcase_page.tiles(shown, learned.operators),
        (
            f"{passed} of {len(rows)}",
            "layers agree with the float64 reference, gradients too",
            passed == len(rows),
        ),
        digits_page.accuracy_tile(learned),
    ]
    parts = [
        page.tiles(figures),
        page.part("An AlexNet-shaped network"),
        *showcase_page.sections(shown, album, options.backend, device),
        page.part("LeNet-5 reads handwriting"),
        *digits_page.sections(learned, album),
    ]
    lead = """pydl gives PyTorch the layers of the classic deep-learning curriculum as kernels
        written by hand, with the names and arguments of <code>torch.nn</code>'s. What you see was
        computed on this machine a moment ago: the layers were held to a float64 reference and timed
        against stock PyTorch, and a network built of them learned to read."""
    return page.page("Deep-learning layers, written by hand", lead, parts, versions(device))


RECIPE = Recipe(
    "demo",
    "digits, and an AlexNet-shaped network's layers, held to the reference and timed by PyTorch's",
    ("sklearn", "matplotlib"),
    _steps,
)
