"""Text, character by character: the source of Python's standard library, or files that you have.

Characters are numbered by one alphabet, that of programs: what is not in it counts as one and the
same unknown character.
"""

import string
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pydl.data.files import CorruptFileError, contents

# Every character that ASCII programs are written in; any other counts as the last.
ALPHABET = "\n" + string.printable[:95] + "\N{REPLACEMENT CHARACTER}"
SOURCE = "the modules that lie directly in the folder of Python's standard library"
LICENCE = "Python Software Foundation License Version 2"

_NUMBER = {character: number for number, character in enumerate(ALPHABET)}
# One of this many files is held out or, of fewer files, one part of this many of each.
_HELD_OUT = 20


@dataclass(frozen=True)
class Parts:
    """What is learned from, and what only measures."""

    train: str
    held_out: str
    source: str
    licence: str


@dataclass(frozen=True)
class Text:
    """Numbers of characters, uint8: what a model learns from, and what only measures it."""

    train: torch.Tensor
    held_out: torch.Tensor
    source: str
    licence: str


def encode(text: str) -> torch.Tensor:
    """The characters' numbers in :data:`ALPHABET`, uint8; tabs become four spaces."""
    unknown = len(ALPHABET) - 1
    numbers = (_NUMBER.get(character, unknown) for character in text.replace("\t", "    "))
    return torch.tensor(bytearray(numbers), dtype=torch.uint8)


def decode(numbers: torch.Tensor) -> str:
    """The text of a vector of numbers."""
    return "".join(ALPHABET[number] for number in numbers.tolist())


def read(file: Path) -> str:
    """A file of UTF-8, compressed with gzip or not, with lines that end as Python's do.

    Raises:
        CorruptFileError: it is not UTF-8, or damaged.
    """
    content = contents(file)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        wrong = content[error.start : error.end].hex(" ")
        raise CorruptFileError(
            file, error.start, f"expected text in UTF-8, got {wrong} ({error.reason})"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def parts(
    path: Path | None = None,
    *,
    pattern: str = "*.txt",
    source: str = "your own files",
    licence: str = "not stated",
) -> Parts:
    """A text file, or those of a folder in the order of their names.

    Every 20th file is held out; of fewer than 20 files the last twentieth of each.

    Args:
        path: a file or a folder; None for the standard library's own source (about 5 MB).
        pattern: of the names of files in a folder; ``**/*.md`` finds those in further folders too.
            What begins with a dot is left out.
        source: of the text.
        licence: of the text.

    Raises:
        FileNotFoundError: there is no such file or folder, or no such file in it.
        ValueError: the text is too short to hold some of it out.
        CorruptFileError: a file is not UTF-8, or damaged.
    """
    if path is None:
        path, pattern = Path(sysconfig.get_path("stdlib")), "*.py"
        source, licence = SOURCE, LICENCE
    texts = [read(file) for file in _files(path, pattern)]
    if len(texts) < _HELD_OUT:
        ends = [len(text) - len(text) // _HELD_OUT for text in texts]
        train = [text[:end] for text, end in zip(texts, ends, strict=True)]
        held_out = [text[end:] for text, end in zip(texts, ends, strict=True)]
    else:
        held_out = texts[_HELD_OUT - 1 :: _HELD_OUT]
        train = [text for number, text in enumerate(texts, 1) if number % _HELD_OUT]
    if not any(train) or not any(held_out):
        raise ValueError(
            f"expected text to learn from and some to hold out in {path}, "
            f"got {sum(map(len, texts))} characters"
        )
    return Parts("".join(train), "".join(held_out), source, licence)


def load(path: Path | None = None, **named: Any) -> Text:
    """The characters of a text: see :func:`parts`."""
    found = parts(path, **named)
    return Text(encode(found.train), encode(found.held_out), found.source, found.licence)


def _files(path: Path, pattern: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"expected a text file or a folder, {path} is neither")
    files = [
        file
        for file in sorted(path.glob(pattern))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not files:
        raise FileNotFoundError(
            f"expected files named {pattern} in {path}, found none; pattern=... asks for others"
        )
    return files
