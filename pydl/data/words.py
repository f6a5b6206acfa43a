"""Text, word by word: the source of Python's standard library, or files that you have.

A word is a name, a number, a mark, or the end of a line with the spaces that the next one begins
with; other spaces separate and are not kept. The commonest words of the text to learn from have
numbers, all others are one unknown word.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pydl.data import text as texts

UNKNOWN = "\N{REPLACEMENT CHARACTER}"

_WORD = re.compile(r"\w+|[^\w\s]|\n *")
_NAME = re.compile(r"\w")


def split(text: str) -> list[str]:
    """The words of a text; tabs become four spaces."""
    return _WORD.findall(text.replace("\t", "    "))


def join(words: Sequence[str]) -> str:
    """A text of them, with a space before each name or number that comes behind another or behind a
    comma."""
    text = before = ""
    for word in words:
        apart = _NAME.match(word) and (before == "," or _NAME.match(before))
        text += f" {word}" if apart else word
        before = word
    return text


class Vocabulary:
    """Numbers of words, 0 being the unknown one's and the commonest's the lowest.

    Args:
        words: of the text to learn from.
        size: how many words have a number at most.
    """

    def __init__(self, words: Sequence[str], size: int) -> None:
        common = Counter(words)
        del common[UNKNOWN]
        self.words = (UNKNOWN, *(word for word, _ in common.most_common(size - 1)))
        self._numbers = {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str]) -> torch.Tensor:
        """The numbers of words, int64."""
        return torch.tensor([self._numbers.get(word, 0) for word in words], dtype=torch.int64)

    def decode(self, numbers: torch.Tensor) -> str:
        """A vector of numbers as a text: see :func:`join`."""
        return join([self.words[number] for number in numbers.tolist()])


@dataclass(frozen=True)
class Words:
    """Numbers of words, int64: what a model learns from, and what only measures it."""

    train: torch.Tensor
    held_out: torch.Tensor
    vocabulary: Vocabulary
    source: str
    licence: str


def load(path: Path | None = None, *, size: int = 2000, **named: Any) -> Words:
    """The words of a text; :func:`pydl.data.text.parts` says what is held out, and has the other
    arguments and errors.

    Args:
        size: of the vocabulary.
    """
    found = texts.parts(path, **named)
    train = split(found.train)
    vocabulary = Vocabulary(train, size)
    held_out = vocabulary.encode(split(found.held_out))
    return Words(vocabulary.encode(train), held_out, vocabulary, found.source, found.licence)
