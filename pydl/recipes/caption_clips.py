"""A network says what a digit does in a clip, "a three moves left then grows", frame by frame and
in a sentence, and the same network told one frame cannot.

What is done is in no frame by itself (:mod:`pydl.data.episodes`), and held-out clips are of
held-out digits. The convolutions first learn by themselves which digit is in a frame, as those of
the papers had learned from ImageNet. Then LRCN learns what is done in each frame. What reads the
frames in it becomes the captioner's encoder, whose decoder attends to the frames that a word is
about.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import nn
from pydl.asked import use_backend
from pydl.data.episodes import ACTS, Episodes, episodes
from pydl.data.pairs import Vocabulary
from pydl.models.sequence.clip_captioner import ClipCaptioner
from pydl.models.stages import stages
from pydl.models.video.lrcn import LRCN, MAPS, lrcn_digits
from pydl.recipes import writing
from pydl.recipes.recipe import Options, Recipe, losses, publish
from pydl.recipes.writing import Score
from pydl.train import Confusion, Epoch, Settings, evaluate, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

TARGET = 0.75  # of the held-out sentences that are right about the first act, and about the second
FRAMES = 0.8  # of the held-out frames, what is done in them
NEAR_CHANCE = 0.2  # of 300 middle frames, four deviations beyond the eighth that guessing gets
TRAIN, HELD_OUT = 2000, 300
LABELLED, CAPTIONED = 6, 6  # epochs
_APART = 4  # one of so many frames is for the convolutions alone

NETWORK = "with attention over time"
FRAME = "the same network, told one frame"
NEAREST = "that of the nearest clip"
FREQUENT = "the most frequent sentence"


@dataclass(frozen=True)
class Told:
    """What networks that were told the same of each clip learned, and made of the held-out ones."""

    confusion: Confusion  # LRCN's, of what is done in frames
    model: ClipCaptioner
    epochs: Sequence[Epoch]
    texts: Sequence[str]
    weights: torch.Tensor  # [L, N, T]: which frames were read for each word


@dataclass(frozen=True)
class Result:
    """What was learned and found of the held-out clips."""

    held_out: Episodes
    clips: Told
    frame: Told
    texts: Mapping[str, Sequence[str]]  # by who wrote them
    found: Mapping[str, Score]
    pointing: float  # of the acts named in right sentences, how many were looked at


def middle(made: Episodes) -> Episodes:
    """The same clips, of which the middle frame alone is left."""
    one = slice(made.frames.shape[2] // 2, made.frames.shape[2] // 2 + 1)
    return replace(
        made, frames=made.frames[:, :, one], masks=made.masks[:, one], acts=made.acts[:, one]
    )


def acquainted(learned: Episodes, options: Options) -> nn.Module:
    """Convolutions that know which digit is in a frame."""
    torch.manual_seed(options.seed)
    features = stages(1, MAPS).to(options.device)
    frames = learned.frames[:, :, ::_APART].transpose(1, 2)  # [N, T, 1, H, W]
    labels = learned.labels[:, None].expand(frames.shape[:2]).flatten()
    writing.acquaint(features, MAPS[-1], frames.flatten(0, 1), list(labels), options)
    return features


def label(
    features: nn.Module,
    learned: Episodes,
    held_out: Episodes,
    options: Options,
    console: "Console",
) -> tuple[LRCN, Confusion]:
    """LRCN that has learned what is done in each frame, with these convolutions to begin with, and
    what it takes for what in the held-out ones."""
    torch.manual_seed(options.seed)
    model = lrcn_digits().to(options.device)
    model.frames.features.load_state_dict(features.state_dict())
    asked = TensorDataset(held_out.frames, held_out.acts)
    fit(
        model,
        TensorDataset(learned.frames, learned.acts),
        epochs=options.epochs or LABELLED,
        held_out=asked,
        optimizer=torch.optim.AdamW(model.parameters(), writing.RATE, weight_decay=1e-2),
        schedule=schedules.one_cycle(warm_up=0.2),
        settings=Settings(
            batch=writing.BATCH, seed=options.seed, clip=writing.CLIP, channels_last=True
        ),
        on_epoch=losses(console),
    )
    confusion = evaluate(model, asked).confusion
    assert confusion is not None
    return model, confusion


def learn(
    features: nn.Module,
    words: Vocabulary,
    learned: Episodes,
    held_out: Episodes,
    options: Options,
    console: "Console",
) -> Told:
    """LRCN first, and then a captioner that reads frames as LRCN has learned to."""
    lrcn, confusion = label(features, learned, held_out, options, console)
    torch.manual_seed(options.seed)
    model = ClipCaptioner(copy.deepcopy(lrcn.frames), len(words)).to(options.device)
    data = writing.Data.of(
        words, (learned.frames, learned.sentences), (held_out.frames, held_out.sentences)
    )
    epochs = writing.train(
        model, data, epochs=options.epochs or CAPTIONED, options=options, console=console
    )
    return Told(confusion, model, epochs, *writing.write(model, words, data.asked()))


def pointing(held_out: Episodes, texts: Sequence[str], weights: torch.Tensor) -> list[bool]:
    """Of each act named in a right sentence, whether the frame that was read most when its verb was
    written is one in which it is done. ``weights`` are those of
    :func:`pydl.recipes.writing.write`."""
    found = []
    for i, text in enumerate(texts):
        if text != held_out.sentences[i]:
            continue
        words, acts = text.split(), held_out.acts[i]
        for step, act in ((2, acts[0]), (words.index("then") + 1, acts[-1])):
            found.append(bool(acts[weights[step, i].argmax()] == act))
    return found


def parts(written: Sequence[str], right: Sequence[str]) -> list[float]:
    """The part of the sentences that have the right digit, first and second act."""

    def split(text: str) -> list[str]:
        before, _, second = text.partition(" then ")
        return [" ".join(before.split()[:2]), " ".join(before.split()[2:]), second]

    pairs = [(split(one), split(other)) for one, other in zip(written, right, strict=True)]
    return [sum(a[i] == b[i] for a, b in pairs) / len(pairs) for i in range(3)]


def is_told(result: Result) -> bool:
    """Whether the sentences say what is done, and are better than all others."""
    exact = {name: score.exact for name, score in result.found.items()}
    _, *acts = parts(result.texts[NETWORK], result.held_out.sentences)
    return min(acts) >= TARGET and exact[NETWORK] == max(exact.values())


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import caption_clips_page  # which imports matplotlib

    learned, held_out = (
        episodes(count, seed=options.seed, held_out=kept)
        for count, kept in ((TRAIN, False), (HELD_OUT, True))
    )
    words = writing.vocabulary(learned.sentences)
    with use_backend(options.backend):
        features = acquainted(learned, options)
        console.print("What is done in each frame, and then sentences:")
        clips = learn(features, words, learned, held_out, options, console)
        console.print("The same, told one frame:")
        frame = learn(features, words, middle(learned), middle(held_out), options, console)
        known, right = learned.sentences, held_out.sentences
        texts = {
            NETWORK: clips.texts,
            FRAME: frame.texts,
            NEAREST: writing.nearest(held_out.frames, learned.frames, known),
            FREQUENT: writing.frequent(known, len(right)),
        }
        found = {name: writing.score(text, right) for name, text in texts.items()}
        looked = pointing(held_out, clips.texts, clips.weights)
        part = sum(looked) / max(1, len(looked))
        result = Result(held_out, clips, frame, texts, found, part)
        html = caption_clips_page.html(options, len(known), result)
    accuracy, guessed = (one.confusion.accuracy for one in (clips, frame))
    console.print(
        f"what is done in a frame: LRCN {100 * accuracy:.1f} %, told one frame "
        f"{100 * guessed:.1f} %, guessing {100 / len(ACTS):.1f} %",
        soft_wrap=True,
    )
    for name, score in found.items():
        console.print(f"{name}: {score}")
    console.print(
        f"of {len(looked)} acts named in right sentences {100 * part:.1f} % were looked at",
        soft_wrap=True,
    )
    publish(html, options, console)
    return is_told(result) and accuracy >= FRAMES and guessed < NEAR_CHANCE


RECIPE = Recipe(
    "caption-clips",
    "a network says frame by frame and in a sentence what a digit does in a clip, each of two acts "
    f"in at least {100 * TARGET:.0f} % of the sentences; told one frame it cannot",
    ("sklearn", "sacrebleu", "matplotlib"),
    _steps,
)
