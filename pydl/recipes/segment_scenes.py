"""A small U-Net says of every pixel of a picture which digit it belongs to, or to none.

The pictures are scenes (:mod:`pydl.data.scenes`): real handwritten digits, turned and scaled, on a
ground strewn with scraps of others, which belong to nothing. It is measured on scenes of digits
that no training scene shows.
"""

from typing import TYPE_CHECKING

import torch

from pydl.asked import use_backend
from pydl.data import Split, masks, scenes
from pydl.data.split import standardised
from pydl.recipes import segmentation
from pydl.recipes.recipe import Options, Recipe

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.85  # mean Jaccard index on held-out digits
SIDE = 64
DIGITS, SCALE = (2, 4), (0.3, 0.45)  # in a picture, and their heights as parts of its side
TRAIN, HELD_OUT = 2000, 200  # pictures
EPOCHS = 8
CLASSES = ("background", *map(str, range(10)))


def load(count: int, held_out: int, seed: int) -> Split:
    """So many scenes of the digits to learn from, and of those held out."""
    pairs = []
    for number, kept in ((count, False), (held_out, True)):
        made = scenes.scenes(number, SIDE, seed=seed, held_out=kept, digits=DIGITS, scale=SCALE)
        images = torch.stack([scene.image for scene in made])
        maps = torch.stack([scene.map for scene in made])
        pairs.append(((255 * images).round().to(torch.uint8), maps))
    return standardised(*pairs, classes=CLASSES, source=scenes.SOURCE, licence=scenes.LICENCE)


def _steps(options: Options, console: "Console") -> bool:
    from matplotlib import colormaps

    split = load(TRAIN, HELD_OUT, options.seed)
    digits = (255 * colormaps["tab10"](range(10))[:, :3]).round().astype(int)
    colours = [masks.palette(1)[0], *map(tuple, digits.tolist())]
    with use_backend(options.backend):
        made = segmentation.learn(
            split,
            colours,
            options,
            console,
            epochs=EPOCHS,
            target=TARGET,
        )
        lead = """A small U-Net learned to say of every pixel which handwritten digit it belongs to,
            if to any. The held-out pictures show digits that it has never seen; scraps of others
            lie about and belong to nothing."""
        segmentation.write("Which digit is this pixel?", lead, made, options, console)
    return made.confusion.mean_jaccard > TARGET


RECIPE = Recipe(
    "segment-scenes",
    f"a U-Net finds the pixels of ten digits in cluttered scenes, mean IoU above {TARGET}",
    ("sklearn", "matplotlib"),
    _steps,
)
