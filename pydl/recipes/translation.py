"""What recipes that translate share: a small translator with attention, its training, and what is
counted of what it writes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader

from pydl import functional, nn
from pydl.data.pairs import Batch, Pair, Pairs, Vocabulary, together, words
from pydl.models.sequence.search import Written
from pydl.models.sequence.translator import Translator
from pydl.recipes.recipe import Options, losses
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

_BATCH, _RATE, _CLIP = 48, 4e-3, 1.0
_AT_ONCE = 100  # texts translated side by side


class Forced(nn.Module):
    """Teacher forcing on batches as they come from the data: (T * B, symbols) scores."""

    def __init__(self, model: Translator) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        source, lengths, target = batch
        return self.model(source, target, lengths.cpu())[0].flatten(0, 1)


def next_symbols(scores: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy of the symbols (T, B) that there are."""
    return functional.cross_entropy(scores, following.flatten())


@dataclass(frozen=True)
class Task:
    """Pairs, and the numbers of their symbols: words of the source, characters of the target."""

    pairs: Pairs
    source: Vocabulary
    target: Vocabulary

    @classmethod
    def of(cls, pairs: Pairs) -> "Task":
        """Vocabularies are those of the pairs to learn from."""
        sources, targets = zip(*pairs.train, strict=True)
        return cls(pairs, Vocabulary(sources, words, " "), Vocabulary(targets))

    def encode(self, pairs: Sequence[Pair]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Pairs of numbers."""
        return [(self.source.encode(a), self.target.encode(b)) for a, b in pairs]

    def network(self, attention: str | None) -> Translator:
        """A fresh translator, a tenth as wide as the paper's."""
        sizes = len(self.source), len(self.target)
        return Translator(*sizes, embedding=64, hidden=96, maxout=64, attention=attention)


def train(
    model: Translator, task: Task, *, epochs: int, options: Options, console: "Console"
) -> Sequence[Epoch]:
    """Adam, a rate that rises to 0.004 and falls to 0; the held-out pairs decide nothing."""

    order = torch.Generator().manual_seed(options.seed)
    pairs, held_out = task.encode(task.pairs.train), task.encode(task.pairs.held_out)
    return fit(
        Forced(model),
        DataLoader(pairs, _BATCH, shuffle=True, generator=order, collate_fn=together),  # type: ignore[arg-type]
        epochs=epochs,
        held_out=DataLoader(held_out, _AT_ONCE, collate_fn=together),  # type: ignore[arg-type]
        optimizer=torch.optim.Adam(model.parameters(), _RATE),
        schedule=schedules.cosine(warm_up=0.1),
        loss=next_symbols,
        settings=Settings(clip=_CLIP, seed=options.seed),
        on_epoch=losses(console),
    ).epochs


def translate(
    model: Translator, task: Task, texts: Sequence[str], *, width: int = 1
) -> tuple[list[str], list[torch.Tensor]]:
    """What the model writes for each text, and the weights (T, S) it read the words with; no text
    becomes longer than twice the longest that was learned."""
    longest = 2 * max(len(target) for _, target in task.pairs.train)
    device = next(model.parameters()).device
    model.eval()
    found: list[str] = []
    weights: list[torch.Tensor] = []
    for begin in range(0, len(texts), _AT_ONCE):
        some = [(task.source.encode(text), torch.tensor([0])) for text in texts[begin:][:_AT_ONCE]]
        (source, lengths, _), _ = together(some)
        written = model.write(source.to(device), lengths, longest=longest, width=width)
        for i, length in enumerate(lengths.tolist()):
            found.append(task.target.decode(written.symbols[:, i]))
            weights.append(_own(written, i, len(found[-1]) + 1, length))
    return found, weights


def _own(written: Written, i: int, steps: int, places: int) -> torch.Tensor:
    return written.weights[:steps, i, :places].cpu()


@dataclass(frozen=True)
class Score:
    """How good translations are."""

    exact: float  # the part that is right to the last character
    chrf: float  # sacrebleu's F-score of their character n-grams, 0 to 100


def score(written: Sequence[str], right: Sequence[str]) -> Score:
    """Of texts beside the right ones.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    from sacrebleu import corpus_chrf

    same = sum(a == b for a, b in zip(written, right, strict=True))
    return Score(same / len(right), corpus_chrf(list(written), [list(right)]).score)


def batch_of(task: Task, pairs: Sequence[Pair]) -> Batch:
    """Encoded pairs as one batch."""
    return together(task.encode(pairs))
