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
from torch.utils.data import DataLoader, TensorDataset

from pydl import nn
from pydl.asked import use_backend
from pydl.data import pairs, scenes
from pydl.data.pairs import Vocabulary
from pydl.data.sentences import WORDS
from pydl.models.sequence.captioner import Captioner, captioner
from pydl.recipes import translation
from pydl.recipes.recipe import Options, Recipe, losses, publish
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.5  # of the held-out sentences exactly right
POINTING = 0.5  # of the digits named, looked at when they are
TRAIN, HELD_OUT = 3000, 300
EPOCHS = 8
SIDE = 64  # of a picture; captioner() is for it

ACQUAINTED = 5  # epochs in which the convolutions learn alone
_BATCH, _RATE, _CLIP = 32, 3e-3, 1.0
_AT_ONCE = 100  # pictures written about side by side
_LONGEST = 12  # words

NETWORK = "with attention"
FREQUENT = "the most frequent sentence"
NEAREST = "that of the nearest picture"


@dataclass(frozen=True)
class Score:
    """How good sentences are."""

    exact: float  # the part that is right to the last word
    bleu: float  # sacrebleu's, of n-grams of up to 4 words, 0 to 100


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


class Forced(nn.Module):
    """Teacher forcing on batches as they come from the data: (T * B, symbols) scores."""

    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        images, target = batch
        return self.model(images, target)[0].flatten(0, 1)


def of_digits(count: int, seed: int, *, held_out: bool) -> list[scenes.Scene]:
    """Pictures of one digit to three."""
    return scenes.scenes(
        count, SIDE, seed=seed, held_out=held_out, digits=(1, 3), scale=(0.25, 0.4), clutter=4
    )


def vocabulary(made: Sequence[scenes.Scene]) -> Vocabulary:
    """The words of these pictures' sentences."""
    return Vocabulary([scene.sentence for scene in made], pairs.words, " ")


def together(
    made: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A batch of pictures and encoded sentences; see :func:`pydl.data.pairs.forced`."""
    images, sentences = zip(*made, strict=True)
    begun, following = pairs.forced(sentences)
    return (torch.stack(images), begun), following


class Seen(nn.Module):
    """Which digits are in a picture: (B, 10) scores, each of the place where it is highest."""

    def __init__(self, features: nn.Module, size: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Conv2d(size, len(WORDS), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images)).amax((2, 3))


def acquaint(
    model: Captioner, learned: Sequence[scenes.Scene], *, epochs: int, options: Options
) -> Sequence[Epoch]:
    """Lets the convolutions learn which digits are in a picture.

    Those of the paper had learned to classify ImageNet before. From random weights attention reads
    everything alike, and what it reads teaches the convolutions next to nothing.
    """
    digits = torch.zeros(len(learned), len(WORDS))
    for row, scene in zip(digits, learned, strict=True):
        row[scene.labels] = 1
    seen = Seen(model.features, model.size).to(options.device)
    return fit(
        seen,
        TensorDataset(torch.stack([scene.image for scene in learned]), digits),
        epochs=epochs,
        optimizer=torch.optim.AdamW(seen.parameters(), _RATE, weight_decay=1e-2),
        schedule=schedules.one_cycle(warm_up=0.2),
        loss=nn.functional.binary_cross_entropy_with_logits,
        settings=Settings(batch=_BATCH, seed=options.seed, channels_last=True),
    ).epochs


def train(
    model: Captioner,
    learned: Sequence[scenes.Scene],
    held_out: Sequence[scenes.Scene],
    words: Vocabulary,
    *,
    epochs: int,
    options: Options,
    console: "Console",
) -> Sequence[Epoch]:
    """AdamW, a rate that rises to 0.003 and falls; the held-out pictures decide nothing."""

    def encoded(made: Sequence[scenes.Scene]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(scene.image, words.encode(scene.sentence)) for scene in made]

    order = torch.Generator().manual_seed(options.seed)
    return fit(
        Forced(model),
        DataLoader(
            encoded(learned),  # type: ignore[arg-type]
            _BATCH,
            shuffle=True,
            generator=order,
            collate_fn=together,
        ),
        epochs=epochs,
        held_out=DataLoader(encoded(held_out), _AT_ONCE, collate_fn=together),  # type: ignore[arg-type]
        optimizer=torch.optim.AdamW(model.parameters(), _RATE, weight_decay=1e-2),
        schedule=schedules.one_cycle(warm_up=0.2),
        loss=translation.next_symbols,
        settings=Settings(clip=_CLIP, seed=options.seed, channels_last=True),
        on_epoch=losses(console),
    ).epochs


def write(
    model: Captioner, words: Vocabulary, images: torch.Tensor
) -> tuple[list[str], torch.Tensor]:
    """What the model writes about each image, and the weights (T, N, H W) that it read the map with
    meanwhile, zeros behind a sentence's end."""
    device = next(model.parameters()).device
    model.eval()
    texts: list[str] = []
    weights = []
    for some in images.split(_AT_ONCE):
        written = model.write(some.to(device), longest=_LONGEST)
        texts += [words.decode(one) for one in written.symbols.T]
        weights.append(written.weights.cpu().transpose(0, 1))  # [B, T, H W]
    longest = max(one.shape[1] for one in weights)
    padded = [nn.functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one in weights]
    return texts, torch.cat(padded).transpose(0, 1)


def score(written: Sequence[str], right: Sequence[str]) -> Score:
    """Of sentences beside the right ones.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    from sacrebleu import corpus_bleu

    same = sum(a == b for a, b in zip(written, right, strict=True))
    return Score(same / len(right), corpus_bleu(list(written), [list(right)]).score)


def frequent(learned: Sequence[scenes.Scene], count: int) -> list[str]:
    """A baseline: of so many pictures the sentence that most of those learned have."""
    sentences = [scene.sentence for scene in learned]
    return [max(sorted(set(sentences)), key=sentences.count)] * count


def nearest(learned: Sequence[scenes.Scene], held_out: Sequence[scenes.Scene]) -> list[str]:
    """A baseline: the sentence of the training picture that is nearest, by the sum of squared
    differences of their pixels."""
    images, others = (
        torch.stack([scene.image for scene in made]).flatten(1) for made in (held_out, learned)
    )
    return [learned[i].sentence for i in torch.cdist(images, others).argmin(1).tolist()]


def pointing(
    held_out: Sequence[scenes.Scene], texts: Sequence[str], weights: torch.Tensor
) -> list[bool]:
    """Of each digit named in a right sentence, whether the place that was read most when its name
    was written lies in its box. ``weights`` are those of :func:`write`."""
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
    words = vocabulary(learned)
    torch.manual_seed(options.seed)
    model = captioner(len(words)).to(options.device)
    with use_backend(options.backend):
        acquaint(model, learned, epochs=options.epochs or ACQUAINTED, options=options)
        epochs = train(
            model,
            learned,
            held_out,
            words,
            epochs=options.epochs or EPOCHS,
            options=options,
            console=console,
        )
        written, weights = write(model, words, torch.stack([one.image for one in held_out]))
        texts = {
            NETWORK: written,
            NEAREST: nearest(learned, held_out),
            FREQUENT: frequent(learned, len(held_out)),
        }
        right = [scene.sentence for scene in held_out]
        found = {name: score(text, right) for name, text in texts.items()}
        looked = pointing(held_out, written, weights)
        part = sum(looked) / max(1, len(looked))
        result = Result(model, held_out, words, epochs, weights, texts, found, part)
        html = caption_scenes_page.html(options, len(learned), result)
    for name, one in found.items():
        console.print(f"{name}: {100 * one.exact:.1f} % exactly right, BLEU {one.bleu:.1f}")
    console.print(
        f"of {len(looked)} digits named in right sentences {100 * part:.1f} % were looked at",
        soft_wrap=True,
    )
    publish(html, options, console)
    others = max(found[name].exact for name in (FREQUENT, NEAREST))
    return found[NETWORK].exact >= max(TARGET, others) and part >= POINTING


RECIPE = Recipe(
    "caption-scenes",
    "a network with attention says which digits are in a picture and where they lie of each other, "
    f"at least {100 * TARGET:.0f} % of the sentences exactly, and looks at what it names",
    ("sklearn", "sacrebleu", "matplotlib"),
    _steps,
)
