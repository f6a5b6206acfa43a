"""What the recipes that read lines of text share: a small CRNN, its training, the baselines, and
what is counted of what is read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import nn
from pydl.data.lines import Lines, Part
from pydl.models.sequence import crnn, ctc
from pydl.models.sequence.crnn import CRNN
from pydl.models.sequence.line_reader import LineReader
from pydl.recipes.recipe import Options, losses
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

MAPS, HIDDEN = (16, 24, 32, 32, 64, 64, 64), 64  # of a CRNN a fifth as wide as the paper's
WIDTH = 8  # of the beam
_BATCH, _RATE, _CLIP = 16, 3e-3, 5.0
_AT_ONCE = 100  # images read side by side


def network(symbols: int) -> CRNN:
    """A small CRNN: batch normalisation behind every convolution, and one bidirectional LSTM. With
    the paper's two it had learned where digits are after 1,000 steps and not yet which; with one
    it reads after 300."""
    return CRNN(symbols, maps=MAPS, norms=range(len(MAPS)), layers=1, hidden=HIDDEN)


def attentive(symbols: int) -> LineReader:
    """The same columns, read by a decoder with attention."""
    columns = crnn.Columns(maps=MAPS, norms=range(len(MAPS)), layers=1, hidden=HIDDEN)
    return LineReader(columns, symbols)


class Alphabet:
    """Numbers of characters, behind the blank's.

    Args:
        texts: every character in them gets a number; others are left out.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.characters = sorted({character for text in texts for character in text})

    def __len__(self) -> int:
        return 1 + len(self.characters)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """(N, L) numbers of the texts' characters, int64, blanks behind each text."""
        number = {character: i for i, character in enumerate(self.characters, 1)}
        rows = [[number[one] for one in text if one in number] for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + [ctc.BLANK] * (longest - len(row)) for row in rows])

    def decode(self, symbols: Sequence[int]) -> str:
        """The text of these numbers."""
        return "".join(self.characters[symbol - 1] for symbol in symbols)


class Columns(nn.Module):
    """The scores of all columns one below the other, (T * B, symbols)."""

    def __init__(self, model: CRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model(images).flatten(0, 1)


def loss(scores: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """:func:`pydl.models.sequence.ctc.loss` of what :class:`Columns` gives."""
    return ctc.loss(scores.view(-1, len(texts), scores.shape[1]), texts)


@dataclass(frozen=True)
class Score:
    """How well texts were read."""

    exact: float  # the part that is right to the last character
    errors: float  # characters wrong, missing or too many, over all characters there are


def score(read: Sequence[str], right: Sequence[str]) -> Score:
    """Of texts beside the right ones, by rapidfuzz's edit distance.

    Raises:
        MissingExtraError: rapidfuzz is not installed.
    """
    from rapidfuzz.distance import Levenshtein

    edits = sum(Levenshtein.distance(a, b) for a, b in zip(read, right, strict=True))
    same = sum(a == b for a, b in zip(read, right, strict=True))
    return Score(same / len(right), edits / sum(map(len, right)))


def train(
    model: CRNN,
    lines: Lines,
    alphabet: Alphabet,
    *,
    epochs: int,
    options: Options,
    console: "Console",
) -> Sequence[Epoch]:
    """AdamW, a rate that rises to 0.003 and falls; the held-out lines decide nothing."""

    def data(part: Part) -> TensorDataset:
        return TensorDataset(part.images, alphabet.encode(part.texts))

    return fit(
        Columns(model),
        data(lines.train),
        epochs=epochs,
        held_out=data(lines.held_out),
        optimizer=torch.optim.AdamW(model.parameters(), _RATE, weight_decay=1e-2),
        schedule=schedules.one_cycle(warm_up=0.2),
        loss=loss,
        settings=Settings(batch=_BATCH, seed=options.seed, clip=_CLIP, channels_last=True),
        on_epoch=losses(console),
    ).epochs


def columns(model: CRNN, images: torch.Tensor) -> torch.Tensor:
    """(T, N, symbols) scores of all images, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        return torch.cat([model(some.to(device)).cpu() for some in images.split(_AT_ONCE)], 1)


def nearest(lines: Lines) -> list[str]:
    """A baseline: of each held-out image the text of the training image that is nearest to it, by
    the sum of squared differences of their pixels."""
    images, others = (part.images.flatten(1) for part in (lines.held_out, lines.train))
    return [lines.train.texts[i] for i in torch.cdist(images, others).argmin(1).tolist()]
