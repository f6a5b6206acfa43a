"""Pairs of texts of which one is to be written from the other: names of numbers in two languages,
or the lines of a file that you have."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from pydl.data.extras import require
from pydl.data.files import CorruptFileError
from pydl.data.text import read
from pydl.models.sequence.decoder import BEGIN, END, PADDING

UNKNOWN = 3  # a symbol that no vocabulary has
SOURCE = "names of numbers by num2words"
LICENCE = "LGPL"
DIGITS = 5  # of the largest number
# One of so many pairs of a file is held out.
_HELD_OUT = 10

Pair = tuple[str, str]
# Sources (S, B), their lengths (B,) and targets (T, B), each begun; behind those, what comes next.
Batch = tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pairs:
    """Texts to learn from, and others that only measure."""

    train: Sequence[Pair]
    held_out: Sequence[Pair]
    source: str
    licence: str


def words(text: str) -> list[str]:
    """Runs of letters and digits, without what separates them."""
    return re.findall(r"\w+", text)


class Vocabulary:
    """Numbers of symbols, behind those that a decoder has of its own.

    Args:
        texts: every symbol in them gets a number.
        split: from a text to its symbols: :func:`words`, or ``list`` for characters.
        joint: what comes between symbols when they are joined again.
    """

    def __init__(
        self, texts: Iterable[str], split: Callable[[str], list[str]] = list, joint: str = ""
    ) -> None:
        self.split, self.joint = split, joint
        found = sorted({symbol for text in texts for symbol in split(text)})
        self.symbols = ("", "", "", "\N{REPLACEMENT CHARACTER}", *found)
        self._numbers = {symbol: number for number, symbol in enumerate(self.symbols)}

    def __len__(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> torch.Tensor:
        """The numbers of its symbols and END, int64."""
        numbers = [self._numbers.get(symbol, UNKNOWN) for symbol in self.split(text)]
        return torch.tensor([*numbers, END])

    def decode(self, numbers: torch.Tensor) -> str:
        """The text of a vector of numbers, up to its END."""
        found = numbers.tolist()
        end = found.index(END) if END in found else len(found)
        return self.joint.join(self.symbols[number] for number in found[:end])


def together(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> Batch:
    """A batch of encoded pairs; what has no successor is followed by -100, which cross entropy
    passes over."""
    sources, targets = zip(*pairs, strict=True)
    lengths = torch.tensor([len(source) for source in sources])
    begun, following = forced(targets)
    return (pad_sequence(list(sources), padding_value=PADDING), lengths, begun), following


def forced(targets: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Encoded texts as a decoder is given them, begun, and what comes next, (T, B) each; see
    :func:`together`."""
    begun = [torch.cat([one.new_tensor([BEGIN]), one[:-1]]) for one in targets]
    return pad_sequence(begun), pad_sequence(list(targets), padding_value=-100)


def numbers(count: int, held_out: int, seed: int, language: str = "de") -> Pairs:
    """So many names of numbers in English and in another language to learn from, and others that
    are held out: of one digit to five, all as likely while there are any.

    Args:
        language: as num2words calls it.

    Raises:
        MissingExtraError: num2words is not installed.
        ValueError: there are not so many numbers.
    """
    require("num2words")
    from num2words import num2words

    if count + held_out > 10**DIGITS:
        raise ValueError(f"there are {10**DIGITS:,} numbers, got {count + held_out:,}")
    drawn = random.Random(seed)
    found: dict[int, None] = {}
    while len(found) < count + held_out:
        found[drawn.randrange(10 ** drawn.randint(1, DIGITS))] = None
    shuffled = list(found)  # in the order in which they were drawn the long ones come last
    drawn.shuffle(shuffled)
    pairs = [(num2words(number), num2words(number, lang=language)) for number in shuffled]
    return Pairs(pairs[held_out:], pairs[:held_out], SOURCE, LICENCE)


def load(file: Path, seed: int = 0) -> Pairs:
    """Lines of two texts with a tab between them; a tenth, drawn at random, is held out.

    Raises:
        CorruptFileError: a line has no tab or several, or the file is not UTF-8.
        ValueError: there are fewer than ten pairs.
    """
    pairs: list[Pair] = []
    at = 0
    for line in read(file).splitlines(keepends=True):
        first, *rest = line.rstrip("\n").split("\t")
        if len(rest) != 1:
            raise CorruptFileError(file, at, f"expected two texts and a tab, got {len(rest)} tabs")
        pairs.append((first, rest[0]))
        at += len(line.encode())
    if len(pairs) < _HELD_OUT:
        raise ValueError(f"expected at least {_HELD_OUT} pairs in {file}, got {len(pairs)}")
    random.Random(seed).shuffle(pairs)
    kept = len(pairs) // _HELD_OUT
    return Pairs(pairs[kept:], pairs[:kept], "your own file", "not stated")
