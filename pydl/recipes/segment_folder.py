"""A small U-Net learns from images and masks of your own: ``pydl run segment-folder --data DIR``.

:mod:`pydl.data.masks` says what the folder holds. Beside the page lie what the network takes the
held-out images for, as masks again.
"""

from typing import TYPE_CHECKING

from pydl.asked import use_backend
from pydl.data import masks
from pydl.recipes import segmentation
from pydl.recipes.recipe import Options, Recipe

if TYPE_CHECKING:
    from rich.console import Console

SIDE = 128  # to which images are scaled
EPOCHS = 30


def _steps(options: Options, console: "Console") -> bool:
    assert options.data is not None
    data = masks.load(options.data, options.seed, size=SIDE)
    with use_backend(options.backend):
        made = segmentation.learn(
            data.split,
            data.colours,
            options,
            console,
            epochs=EPOCHS,
            target=None,
            names=data.held_out,
        )
        lead = """A small U-Net learned to say of every pixel of your images what it belongs to. The
            images below it has never seen."""
        segmentation.write("What every pixel is", lead, made, options, console)
    folder = options.output / "masks"
    folder.mkdir(exist_ok=True)
    for name, map in zip(data.held_out, segmentation.read(made.model, data.split), strict=True):
        masks.write(folder / f"{name}.png", map, data.colours)
    console.print(f"Masks of the held-out images are in {folder}", soft_wrap=True)
    return made.confusion.mean_jaccard > made.baseline.mean_jaccard


RECIPE = Recipe(
    "segment-folder",
    "a U-Net learns from images and masks of your own, and beats the commonest class",
    ("PIL", "matplotlib"),
    _steps,
    of_data=True,
)
