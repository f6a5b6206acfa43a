"""A CRNN learns to read strings of handwritten digits, of which it is told what they say but not
where each digit stands: by CTC, and once more by a decoder with attention.

The digits of the strings that it is asked for are held out, too. It is held to who takes connected
bright pixels for digits and reads each by logistic regression, which *is* told where the digits
stand, and to the nearest neighbour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from pydl.asked import use_backend
from pydl.data import lines, scenes
from pydl.data.extras import require
from pydl.data.pairs import Vocabulary
from pydl.models.sequence import ctc
from pydl.models.sequence.crnn import CRNN
from pydl.models.sequence.line_reader import LineReader
from pydl.recipes import reading, writing
from pydl.recipes.reading import Alphabet, Score
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Epoch

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.05  # of the characters wrong, at most
TRAIN, HELD_OUT = 3000, 500
EPOCHS, ATTENTIVE = 5, 8  # of CTC, and of the decoder with attention

_SIDE = 8  # pixels to which a digit is scaled for the baseline
_INK, _HIGH = 0.5, 10  # from what grey on, and how many pixels high, a part is a digit


@dataclass(frozen=True)
class Attentive:
    """What the decoder with attention learned, and where it looked in the held-out images."""

    model: LineReader
    epochs: Sequence[Epoch]
    weights: torch.Tensor  # [L, N, T]: which columns were read for each character


@dataclass(frozen=True)
class Result:
    """What the networks learned, and what they and others read in the held-out images."""

    model: CRNN
    alphabet: Alphabet
    epochs: Sequence[Epoch]
    scores: torch.Tensor  # [T, N, symbols]: of the columns
    attentive: Attentive
    texts: Mapping[str, Sequence[str]]  # by who read them
    found: Mapping[str, Score]


NETWORK = "CRNN, the likeliest symbol of each column"
SEARCHED = f"CRNN, prefix search of width {reading.WIDTH}"
ATTENDED = "CRNN's columns, a decoder with attention"
SEGMENTED = "connected pixels and logistic regression"
NEAREST = "nearest neighbour of the whole line"


def parts(image: torch.Tensor) -> list[np.ndarray]:
    """The connected bright parts of a line (1, H, W) that are high enough for a digit, from left to
    right, each scaled to 8x8 by itself, its background 0."""
    from scipy import ndimage

    grey = image[0].numpy()
    marked, _ = ndimage.label(grey > _INK, np.ones((3, 3)))
    found = []
    for i, place in enumerate(ndimage.find_objects(marked), 1):
        if place[0].stop - place[0].start >= _HIGH:
            picture = _scaled(grey[place] * (marked[place] == i))
            found.append((place[1].start, picture))
    return [picture for _, picture in sorted(found, key=lambda one: one[0])]


def _scaled(picture: np.ndarray) -> np.ndarray:
    """In the middle of a square, at 8x8."""
    height, width = picture.shape
    side = max(height, width)
    square = torch.zeros(1, 1, side, side)
    top, left = (side - height) // 2, (side - width) // 2
    square[0, 0, top : top + height, left : left + width] = torch.from_numpy(picture)
    return torch.nn.functional.interpolate(square, (_SIDE, _SIDE), mode="area")[0, 0].numpy()


def segmented(train: Sequence[scenes.Scene], held_out: Sequence[scenes.Scene]) -> list[str]:
    """The baseline: bright pixels that are connected are taken for a digit, and read by logistic
    regression, which has learned from the digits in the training scenes, each at its true place."""
    require("sklearn", "scipy")
    from sklearn.linear_model import LogisticRegression

    pictures, labels = [], []
    for scene in train:
        grey = scene.image[0].numpy()
        for (left, top, right, bottom), mask, label in zip(
            scene.boxes.int().tolist(), scene.masks.numpy(), scene.labels.tolist(), strict=True
        ):
            place = slice(top, bottom), slice(left, right)
            pictures.append(_scaled(grey[place] * mask[place]))
            labels.append(label)
    learner = LogisticRegression(max_iter=1000).fit(np.stack(pictures).reshape(-1, 64), labels)
    texts = []
    for scene in held_out:
        some = parts(scene.image)
        read = learner.predict(np.stack(some).reshape(-1, 64)) if some else ()
        texts.append("".join(map(str, read)))
    return texts


def attend(
    data: lines.Lines, options: Options, console: "Console"
) -> tuple[Attentive, Sequence[str]]:
    """The decoder with attention, and what it reads in the held-out images."""
    characters = Vocabulary(data.train.texts)
    torch.manual_seed(options.seed)
    model = reading.attentive(len(characters)).to(options.device)
    both = writing.Data.of(
        characters,
        (data.train.images, data.train.texts),
        (data.held_out.images, data.held_out.texts),
    )
    epochs = writing.train(
        model, both, epochs=options.epochs or ATTENTIVE, options=options, console=console
    )
    texts, weights = writing.write(model, characters, both.asked())
    return Attentive(model, epochs, weights), texts


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import read_digits_page  # which imports matplotlib

    data = lines.strings(TRAIN, HELD_OUT, options.seed)
    alphabet = Alphabet(data.train.texts)
    torch.manual_seed(options.seed)
    model = reading.network(len(alphabet)).to(options.device)
    with use_backend(options.backend):
        epochs = reading.train(
            model,
            data,
            alphabet,
            epochs=options.epochs or EPOCHS,
            options=options,
            console=console,
        )
        scores = reading.columns(model, data.held_out.images)
        console.print("With attention:")
        attentive, attended = attend(data, options, console)
        few = len(data.train.texts) // 3  # more make no difference to so few numbers of a digit
        texts = {
            NETWORK: [alphabet.decode(text) for text in ctc.greedy(scores)],
            SEARCHED: [alphabet.decode(text) for text, _ in ctc.beam(scores, reading.WIDTH)],
            ATTENDED: attended,
            SEGMENTED: segmented(
                lines.of_digits(few, options.seed, held_out=False),
                lines.of_digits(len(data.held_out.texts), options.seed, held_out=True),
            ),
            NEAREST: reading.nearest(data),
        }
        found = {name: reading.score(read, data.held_out.texts) for name, read in texts.items()}
        result = Result(model, alphabet, epochs, scores, attentive, texts, found)
        html = read_digits_page.html(options, data, result)
    for name, one in found.items():
        console.print(
            f"{name}: {100 * one.errors:.1f} % of the characters wrong, "
            f"{100 * one.exact:.1f} % of the strings right",
            soft_wrap=True,
        )
    publish(html, options, console)
    worse = max(found[name].errors for name in (NETWORK, ATTENDED))
    return worse <= min(TARGET, found[SEGMENTED].errors)


RECIPE = Recipe(
    "read-digits",
    "a CRNN reads strings of handwritten digits, by CTC and with attention, at most "
    f"{100 * TARGET:.0f} % of the characters wrong, and better than character by character",
    ("sklearn", "scipy", "rapidfuzz", "matplotlib"),
    _steps,
)
