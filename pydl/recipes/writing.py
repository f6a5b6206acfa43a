"""What recipes share whose networks write about what they have read, pictures, regions, clips or
lines: batches, training, writing, baselines, and what is counted of sentences."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, TensorDataset

from pydl import nn
from pydl.data.pairs import Vocabulary, forced, words
from pydl.data.sentences import WORDS
from pydl.models.sequence.writer import Writer
from pydl.recipes import translation
from pydl.recipes.recipe import Options, losses
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

BATCH, RATE, CLIP = 32, 3e-3, 1.0
ACQUAINTED = 5  # epochs in which convolutions learn alone
_AT_ONCE = 100  # examples written about side by side

# What a writer is called with, its input and the target begun, and what comes next.
Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]


def vocabulary(sentences: Iterable[str]) -> Vocabulary:
    """The words of these sentences."""
    return Vocabulary(sentences, words, " ")


class Forced(nn.Module):
    """Teacher forcing on batches as they come from the data: (T * B, symbols) scores."""

    def __init__(self, model: Writer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.model(*batch)[0].flatten(0, 1)


def together(made: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    """A batch of pictures or clips and encoded sentences; see :func:`pydl.data.pairs.forced`."""
    inputs, sentences = zip(*made, strict=True)
    begun, following = forced(sentences)
    return (torch.stack(inputs), begun), following


@dataclass(frozen=True)
class Data:
    """Examples to learn from and held-out ones, each with its encoded sentence at its end."""

    learned: Sequence[tuple[Any, ...]]
    held_out: Sequence[tuple[Any, ...]]
    collate: Callable[[Sequence[Any]], Batch] = together

    @classmethod
    def of(
        cls,
        symbols: Vocabulary,
        learned: tuple[torch.Tensor, Sequence[str]],
        held_out: tuple[torch.Tensor, Sequence[str]],
    ) -> "Data":
        """Of pictures, clips or lines (N, ...), and what is to be written of each."""
        first, second = (
            [(one, symbols.encode(text)) for one, text in zip(*made, strict=True)]
            for made in (learned, held_out)
        )
        return cls(first, second)

    def shuffled(self, seed: int) -> DataLoader:
        """Batches to learn from."""
        order = torch.Generator().manual_seed(seed)
        return DataLoader(
            self.learned,  # type: ignore[arg-type]
            BATCH,
            shuffle=True,
            generator=order,
            collate_fn=self.collate,
        )

    def asked(self) -> DataLoader:
        """The held-out ones in their order."""
        return DataLoader(self.held_out, _AT_ONCE, collate_fn=self.collate)  # type: ignore[arg-type]


class Seen(nn.Module):
    """Which digits are in a picture: (B, 10) scores, each of the place where it is highest."""

    def __init__(self, features: nn.Module, size: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Conv2d(size, len(WORDS), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images)).amax((2, 3))


def acquaint(
    features: nn.Module,
    size: int,
    images: torch.Tensor,
    labels: Sequence[torch.Tensor],
    options: Options,
) -> None:
    """Lets the convolutions of a network learn which digits are in a picture.

    Those of the papers had learned to classify ImageNet before. From random weights attention reads
    everything alike, and what it reads teaches the convolutions next to nothing.

    Args:
        features: from pictures to maps (N, size, H, W).
        size: see ``features``.
        images: (N, 1, H, W).
        labels: of the digits in each.
        options: of the run; they may say for how many epochs.
    """
    digits = torch.zeros(len(labels), len(WORDS))
    for row, some in zip(digits, labels, strict=True):
        row[some] = 1
    seen = Seen(features, size).to(options.device)
    fit(
        seen,
        TensorDataset(images, digits),
        epochs=options.epochs or ACQUAINTED,
        optimizer=torch.optim.AdamW(seen.parameters(), RATE, weight_decay=1e-2),
        schedule=schedules.one_cycle(warm_up=0.2),
        loss=nn.functional.binary_cross_entropy_with_logits,
        settings=Settings(batch=BATCH, seed=options.seed, channels_last=True),
    )


def train(
    model: Writer, data: Data, *, epochs: int, options: Options, console: "Console"
) -> Sequence[Epoch]:
    """AdamW, a rate that rises to 0.003 and falls; what is held out decides nothing."""
    return fit(
        Forced(model),
        data.shuffled(options.seed),
        epochs=epochs,
        held_out=data.asked(),
        optimizer=torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2),
        schedule=schedules.one_cycle(warm_up=0.2),
        loss=translation.next_symbols,
        settings=Settings(clip=CLIP, seed=options.seed, channels_last=True),
        on_epoch=losses(console),
    ).epochs


def write(
    model: Writer, symbols: Vocabulary, batches: Iterable[Batch], *, longest: int = 12
) -> tuple[list[str], torch.Tensor]:
    """What the model writes about each example, so many symbols at most, and the weights (T, N, S)
    that it read its memory with meanwhile, zeros behind a sentence's end."""
    device = next(model.parameters()).device
    model.eval()
    texts: list[str] = []
    weights = []
    for (input, _, *more), _ in batches:
        written = model.write(*(one.to(device) for one in (input, *more)), longest=longest)
        texts += [symbols.decode(one) for one in written.symbols.T]
        weights.append(written.weights.cpu().transpose(0, 1))  # [B, T, S]
    most = max(one.shape[1] for one in weights)
    padded = [nn.functional.pad(one, (0, 0, 0, most - one.shape[1])) for one in weights]
    return texts, torch.cat(padded).transpose(0, 1)


@dataclass(frozen=True)
class Score:
    """How good sentences are."""

    exact: float  # the part that is right to the last word
    bleu: float  # sacrebleu's, of n-grams of up to 4 words, 0 to 100

    def __str__(self) -> str:
        return f"{100 * self.exact:.1f} % exactly right, BLEU {self.bleu:.1f}"


def score(written: Sequence[str], right: Sequence[str]) -> Score:
    """Of sentences beside the right ones.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    from sacrebleu import corpus_bleu

    same = sum(a == b for a, b in zip(written, right, strict=True))
    return Score(same / len(right), corpus_bleu(list(written), [list(right)]).score)


def frequent(learned: Sequence[str], count: int) -> list[str]:
    """A baseline: so many times the sentence that most of those learned are."""
    return [max(sorted(set(learned)), key=learned.count)] * count


def nearest(pictures: torch.Tensor, learned: torch.Tensor, sentences: Sequence[str]) -> list[str]:
    """A baseline: of each picture (N, ...) the sentence of that one learned (M, ...) which is
    nearest, by the sum of squared differences of their pixels."""
    distances = torch.cdist(pictures.flatten(1), learned.flatten(1))
    return [sentences[i] for i in distances.argmin(1).tolist()]
