"""A network with attention learns to say what is in a picture: "a three left of a seven".

The pictures that it is asked about are of held-out digits. It is held to the sentence that is most
frequent among those learned, and to that of the training picture which is nearest. For each digit
that it names, the place that it reads most should lie in that digit. First its convolutions learn
by themselves which digits are in a picture, as those of the paper had learned from ImageNet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pydl.asked import use_backend
from pydl.data import scenes
from pydl.data.pairs import Vocabulary
from pydl.data.sentences import WORDS
from pydl.models.sequence.captioner import Captioner, captioner
from pydl.recipes import writing
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.recipes.writing import Score
from pydl.train import Epoch

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.5  # of the held-out sentences exactly right
POINTING = 0.5  # of the digits named, looked at when they are
TRAIN, HELD_OUT = 3000, 300
EPOCHS = 8
SIDE = 64  # of a picture; captioner() is for it

NETWORK = "with attention"
FREQUENT = "the most frequent sentence"
NEAREST = "that of the nearest picture"


@dataclass(frozen=True)
class Result:
    """What the network learned, and what it and others wrote of the held-out pictures."""

    model: Captioner
    held_out: Sequence[scenes.Scene]
    vocabulary: Vocabulary
    epochs: Sequence[Epoch]
    weights: torch.Tensor  # [T, N, H W]: which places were read for each word
    texts: Mapping[str, Sequence[str]]  # by who wrote them
    found: Mapping[str, Score]
    pointing: float  # of the digits named in right sentences, how many were looked at


def of_digits(count: int, seed: int, *, held_out: bool) -> list[scenes.Scene]:
    """Pictures of one digit to three."""
    return scenes.scenes(
        count, SIDE, seed=seed, held_out=held_out, digits=(1, 3), scale=(0.25, 0.4), clutter=4
    )


def pointing(
    held_out: Sequence[scenes.Scene], texts: Sequence[str], weights: torch.Tensor
) -> list[bool]:
    """Of each digit named in a right sentence, whether the place that was read most when its name
    was written lies in its box. ``weights`` are those of :func:`pydl.recipes.writing.write`."""
    side = int(weights.shape[2] ** 0.5)
    found = []
    for i, (scene, text) in enumerate(zip(held_out, texts, strict=True)):
        if text != scene.sentence:
            continue
        steps = [step for step, word in enumerate(text.split()) if word in WORDS]
        for step, box in zip(steps, scene.boxes.tolist(), strict=True):
            place = int(weights[step, i].argmax())
            x, y = (SIDE * (0.5 + at) / side for at in (place % side, place // side))
            found.append(box[0] <= x < box[2] and box[1] <= y < box[3])
    return found


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import caption_scenes_page  # which imports matplotlib

    learned = of_digits(TRAIN, options.seed, held_out=False)
    held_out = of_digits(HELD_OUT, options.seed, held_out=True)
    known, right = ([scene.sentence for scene in made] for made in (learned, held_out))
    images, others = (torch.stack([one.image for one in made]) for made in (learned, held_out))
    words = writing.vocabulary(known)
    data = writing.Data.of(words, (images, known), (others, right))
    torch.manual_seed(options.seed)
    model = captioner(len(words)).to(options.device)
    with use_backend(options.backend):
        digits = [scene.labels for scene in learned]
        writing.acquaint(model.features, model.size, images, digits, options)
        epochs = writing.train(
            model, data, epochs=options.epochs or EPOCHS, options=options, console=console
        )
        written, weights = writing.write(model, words, data.asked())
        texts = {
            NETWORK: written,
            NEAREST: writing.nearest(others, images, known),
            FREQUENT: writing.frequent(known, len(right)),
        }
        found = {name: writing.score(text, right) for name, text in texts.items()}
        looked = pointing(held_out, written, weights)
        part = sum(looked) / max(1, len(looked))
        result = Result(model, held_out, words, epochs, weights, texts, found, part)
        html = caption_scenes_page.html(options, len(learned), result)
    for name, one in found.items():
        console.print(f"{name}: {one}")
    console.print(
        f"of {len(looked)} digits named in right sentences {100 * part:.1f} % were looked at",
        soft_wrap=True,
    )
    publish(html, options, console)
    best = max(found[name].exact for name in (FREQUENT, NEAREST))
    return found[NETWORK].exact >= max(TARGET, best) and part >= POINTING


RECIPE = Recipe(
    "caption-scenes",
    "a network with attention says which digits are in a picture and where they lie of each other, "
    f"at least {100 * TARGET:.0f} % of the sentences exactly, and looks at what it names",
    ("sklearn", "sacrebleu", "matplotlib"),
    _steps,
)
