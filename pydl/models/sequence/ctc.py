"""What columns of scores spell: connectionist temporal classification, Graves, Fernandez, Gomez,
Schmidhuber 2006.

A path takes a symbol or the blank in each column. It spells what is left of it when symbols that
follow each other are taken once and blanks are left out; the probability of a text is that of all
paths that spell it. The loss is PyTorch's.
"""

import math
from collections import defaultdict

import torch

from pydl import functional, nn

BLANK = 0

Text = tuple[int, ...]  # symbols


def loss(scores: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """The mean over a batch of -log(probability of the text), each over its length.

    Args:
        scores: (T, B, symbols).
        texts: (B, L) symbols, and :data:`BLANK` behind each text.
    """
    steps, batch, _ = scores.shape
    lengths = (texts != BLANK).sum(1)
    whole = torch.full((batch,), steps)
    return nn.functional.ctc_loss(functional.log_softmax(scores, 2), texts, whole, lengths)


def spelt(path: list[int]) -> Text:
    """What a path spells."""
    pairs = zip(path, [BLANK, *path], strict=False)
    return tuple(symbol for symbol, before in pairs if symbol not in (BLANK, before))


def greedy(scores: torch.Tensor) -> list[Text]:
    """What the likeliest path of each of B examples spells: the best symbol of each column of the
    (T, B, symbols) scores."""
    return [spelt(path) for path in scores.argmax(2).T.tolist()]


def beam(scores: torch.Tensor, width: int = 8) -> list[tuple[Text, float]]:
    """The likeliest text of each of B examples and the logarithm of its probability, by prefix
    search: after each column the ``width`` likeliest beginnings of texts are kept, each with all of
    its paths that come from those kept before.

    Source: Hannun, Maas, Jurafsky, Ng 2014, First-Pass Large Vocabulary Continuous Speech
    Recognition using Bi-Directional Recurrent DNNs, without a language model.

    Args:
        scores: (T, B, symbols).
        width: how many are kept; with as many as there are beginnings the result is exact.

    Raises:
        ValueError: ``width`` is less than 1.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    with torch.no_grad():
        columns = functional.log_softmax(scores, 2).double().transpose(0, 1).tolist()
    return [_search(one, width) for one in columns]


def _search(columns: list[list[float]], width: int) -> tuple[Text, float]:
    # Of each beginning, the paths that end with a blank and those that end with its last symbol:
    # only behind a blank does that symbol come twice.
    kept: dict[Text, tuple[float, float]] = {(): (0.0, -math.inf)}
    for column in columns:
        found: defaultdict[Text, list[list[float]]] = defaultdict(lambda: [[], []])
        for text, (blank, symbol) in kept.items():
            both = _sum([blank, symbol])
            found[text][0].append(both + column[BLANK])
            if text:
                found[text][1].append(symbol + column[text[-1]])
            for number, one in enumerate(column):
                if number != BLANK:
                    before = blank if text and number == text[-1] else both
                    longer = (*text, number)
                    found[longer][1].append(before + one)
        sums = {text: (_sum(blank), _sum(symbol)) for text, (blank, symbol) in found.items()}
        best = sorted(sums, key=lambda text: _sum(sums[text]), reverse=True)[:width]
        kept = {text: sums[text] for text in best}
    text = next(iter(kept))
    return text, _sum(kept[text])


def _sum(logarithms: list[float] | tuple[float, ...]) -> float:
    """The logarithm of a sum of numbers, from theirs."""
    most = max(logarithms, default=-math.inf)
    if most == -math.inf:
        return most
    return most + math.log(sum(math.exp(one - most) for one in logarithms))
