"""A network says what is in each region of a picture: "a small three at the top left".

The regions are given, the boxes of the digits; what to say of one is in its part of the picture,
and in where that lies and how large it is. The pictures are those of ``caption-scenes``, the
held-out ones of held-out digits. The network is held to the nearest region of those learned, and to
the same network told the whole picture, which cannot know which of its digits is meant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pydl import functional
from pydl.asked import use_backend
from pydl.data import scenes
from pydl.data.pairs import Vocabulary, forced
from pydl.models.sequence.region_captioner import RegionCaptioner, region_captioner
from pydl.recipes import writing
from pydl.recipes.caption_scenes import of_digits
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.recipes.writing import Batch, Score
from pydl.train import Epoch

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.7  # of the sentences about held-out regions exactly right
TRAIN, HELD_OUT = 3000, 300  # pictures of one digit to three
EPOCHS = 8
CROP = 16  # pixels to which regions are scaled for the nearest one

NETWORK = "with regions"
WHOLE = "the same network, told the whole picture"
NEAREST = "that of the nearest region"
FREQUENT = "the most frequent sentence"

# A picture, its regions (k, 4), and of each the encoded sentence.
Example = tuple[torch.Tensor, torch.Tensor, Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Result:
    """What the network learned, and what it and others wrote of the held-out regions."""

    model: RegionCaptioner
    held_out: Sequence[scenes.Scene]
    epochs: Sequence[Epoch]
    weights: torch.Tensor  # [T, N, G G]: which places of its region were read for each word
    right: Sequence[str]  # region by region, picture after picture
    texts: Mapping[str, Sequence[str]]  # by who wrote them
    found: Mapping[str, Score]


def encoded(made: Sequence[scenes.Scene], words: Vocabulary) -> list[Example]:
    """Pictures, their regions and what is to be said of these, as numbers."""
    return [
        (scene.image, scene.boxes, [words.encode(sentence) for sentence in scene.regions])
        for scene in made
    ]


def numbered(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """The boxes (k, 4) of each image as regions (K, 5), behind the number of their image."""
    return torch.cat([torch.nn.functional.pad(b, (1, 0), value=i) for i, b in enumerate(boxes)])


def together(made: Sequence[Example]) -> Batch:
    """A batch of pictures and all of their regions, with a sentence each."""
    images, boxes, sentences = zip(*made, strict=True)
    begun, following = forced([one for some in sentences for one in some])
    return (torch.stack(images), begun, numbered(boxes)), following


def blind(made: Sequence[Example]) -> Batch:
    """The same sentences, each with the whole picture for its region."""
    (images, begun, regions), following = together(made)
    height, width = images.shape[2:]
    whole = regions.new_tensor([0, 0, width, height]).expand(len(regions), 4)
    return (images, begun, torch.cat([regions[:, :1], whole], 1)), following


def crops(made: Sequence[scenes.Scene]) -> torch.Tensor:
    """All regions (K, 1, 16, 16) of the pictures."""
    images = torch.stack([scene.image for scene in made])
    regions = numbered([scene.boxes for scene in made])
    return functional.roi_align(images, regions, CROP, 1.0, 2, aligned=True)


def said(made: Sequence[scenes.Scene]) -> list[str]:
    """The sentences about all regions of the pictures."""
    return [sentence for scene in made for sentence in scene.regions]


def parts(written: Sequence[str], right: Sequence[str]) -> tuple[float, float, float]:
    """The part of the sentences that have the right size, digit and place."""

    def split(text: str) -> tuple[str, str, str]:
        _, size, digit, *place = (*text.split(), "", "", "")
        return size, digit, " ".join(place).strip()

    same = [
        [a == b for a, b in zip(split(one), split(other), strict=True)]
        for one, other in zip(written, right, strict=True)
    ]
    size, digit, place = (sum(column) / len(same) for column in zip(*same, strict=True))
    return size, digit, place


def learn(
    data: writing.Data, words: Vocabulary, options: Options, console: "Console"
) -> tuple[RegionCaptioner, Sequence[Epoch], list[str], torch.Tensor]:
    """A network that has learned, and what it writes of what is held out."""
    torch.manual_seed(options.seed)
    model = region_captioner(len(words)).to(options.device)
    epochs = writing.train(
        model, data, epochs=options.epochs or EPOCHS, options=options, console=console
    )
    return model, epochs, *writing.write(model, words, data.asked())


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import caption_regions_page  # which imports matplotlib

    learned = of_digits(TRAIN, options.seed, held_out=False)
    held_out = of_digits(HELD_OUT, options.seed, held_out=True)
    known, right = said(learned), said(held_out)
    words = writing.vocabulary(known)
    examples = encoded(learned, words), encoded(held_out, words)
    with use_backend(options.backend):
        console.print("With regions:")
        model, epochs, written, weights = learn(
            writing.Data(*examples, together), words, options, console
        )
        console.print("The same network, told the whole picture:")
        _, _, guessed, _ = learn(writing.Data(*examples, blind), words, options, console)
        texts = {
            NETWORK: written,
            WHOLE: guessed,
            NEAREST: writing.nearest(crops(held_out), crops(learned), known),
            FREQUENT: writing.frequent(known, len(right)),
        }
        found = {name: writing.score(text, right) for name, text in texts.items()}
        result = Result(model, held_out, epochs, weights, right, texts, found)
        html = caption_regions_page.html(options, len(known), result)
    for name, one in found.items():
        console.print(f"{name}: {one}")
    publish(html, options, console)
    others = max(one.exact for name, one in found.items() if name != NETWORK)
    return found[NETWORK].exact >= max(TARGET, others)


RECIPE = Recipe(
    "caption-regions",
    "a network with attention says of each region of a picture what it shows, how large and where "
    f"it is, at least {100 * TARGET:.0f} % of the sentences exactly",
    ("sklearn", "sacrebleu", "matplotlib"),
    _steps,
)
