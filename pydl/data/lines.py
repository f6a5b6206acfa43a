"""Images of lines of text, and what stands in them: strings of real digits, or images that you
have.

An image's greys are in 0 ... 1, bright ink on a dark ground.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pydl.data import folder, pairs, scenes
from pydl.data.extras import require

HEIGHT, WIDTH = 32, 100  # pixels, as in Shi, Bai, Yao 2015
INDEX = "lines.tsv"
DIGITS = (1, 5)  # fewest and most in a string


@dataclass(frozen=True)
class Part:
    """N images and their texts."""

    images: torch.Tensor  # [N, 1, 32, 100]
    texts: Sequence[str]


@dataclass(frozen=True)
class Lines:
    """What one learns from, and what only measures it."""

    train: Part
    held_out: Part
    source: str
    licence: str


def strings(count: int, held_out: int, seed: int) -> Lines:
    """So many strings of digits from :mod:`pydl.data.scenes`; those held out are made of held-out
    digits alone.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    train, kept = (
        _part((scene.image, said(scene)) for scene in of_digits(number, seed, held_out=other))
        for number, other in ((count, False), (held_out, True))
    )
    return Lines(train, kept, scenes.SOURCE, scenes.LICENCE)


def said(scene: scenes.Scene) -> str:
    """The digits of a scene from left to right: a line is read as one, however it goes up and
    down."""
    return "".join(str(label) for label in scene.labels[scene.boxes[:, 0].argsort()].tolist())


def of_digits(count: int, seed: int, *, held_out: bool) -> list[scenes.Scene]:
    """The scenes that :func:`strings` are in."""
    return scenes.scenes(
        count,
        (HEIGHT, WIDTH),
        seed=seed,
        held_out=held_out,
        digits=DIGITS,
        scale=(0.6, 0.8),
        angle=8,
        clutter=4,
    )


def load(path: Path, seed: int = 0, *, dark: bool = True) -> Lines:
    """The images of a folder that its file ``lines.tsv`` lists: in each line an image's name, a tab
    and the text. A tenth, drawn at random, is held out. Images are scaled to 32x100, wider or
    narrower than they were.

    Args:
        path: the folder.
        seed: of what is held out.
        dark: whether the ink is darker than the ground, as on paper; greys are then turned round.

    Raises:
        FileNotFoundError: there is no such folder or list, or an image is missing.
        CorruptFileError: an image cannot be read, or a line of the list has no tab or several.
        ValueError: the list has fewer than ten lines, or an empty text.
        MissingExtraError: Pillow is not installed.
    """
    require("PIL")
    listed = pairs.load(path / INDEX, seed)
    for name, text in (*listed.train, *listed.held_out):
        if not text:
            raise ValueError(f"expected a text for {name} in {path / INDEX}, got none")
    train, held_out = (
        _part((_read(path / name, dark), text) for name, text in some)
        for some in (listed.train, listed.held_out)
    )
    return Lines(train, held_out, source="your own files", licence="not stated")


def _part(pairs: Iterable[tuple[torch.Tensor, str]]) -> Part:
    images, texts = zip(*pairs, strict=True)
    return Part(torch.stack(images), texts)


def _read(file: Path, dark: bool) -> torch.Tensor:
    import PIL.Image

    picture = folder.opened(file).convert("L")
    picture = picture.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BILINEAR)
    greys = torch.from_numpy(np.array(picture, np.float32)).div_(255)[None]
    return 1 - greys if dark else greys
