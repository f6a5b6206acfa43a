"""The source text of Python's standard library, character by character."""

import string
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch

# Every character that ASCII programs are written in; any other counts as the last.
ALPHABET = "\n" + string.printable[:95] + "\N{REPLACEMENT CHARACTER}"
_NUMBER = {character: number for number, character in enumerate(ALPHABET)}

# One of this many files is held out.
_HELD_OUT = 20


@dataclass(frozen=True)
class Text:
    """Numbers of characters, uint8: what the model learns from, and what only measures it."""

    train: torch.Tensor
    held_out: torch.Tensor


def encode(text: str) -> torch.Tensor:
    """The characters' numbers in :data:`ALPHABET`, uint8; tabs become four spaces."""
    unknown = len(ALPHABET) - 1
    numbers = (_NUMBER.get(character, unknown) for character in text.replace("\t", "    "))
    return torch.tensor(bytearray(numbers), dtype=torch.uint8)


def decode(numbers: torch.Tensor) -> str:
    """The text of a vector of numbers."""
    return "".join(ALPHABET[number] for number in numbers.tolist())


def load(folder: Path | None = None) -> Text:
    """Reads the modules that lie directly in a folder, in the order of their names.

    Args:
        folder: of ``.py`` files; the standard library's by default (about 5 MB).

    Returns:
        The text of every 20th file as held out, of the others to learn from.

    Raises:
        FileNotFoundError: the folder has fewer than 20 such files.
    """
    folder = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    files = sorted(folder.glob("*.py"))
    if len(files) < _HELD_OUT:
        raise FileNotFoundError(
            f"expected at least {_HELD_OUT} Python files to learn from in {folder}, "
            f"found {len(files)}"
        )
    texts = [file.read_text("utf-8", errors="replace") for file in files]
    held_out = texts[_HELD_OUT - 1 :: _HELD_OUT]
    del texts[_HELD_OUT - 1 :: _HELD_OUT]
    return Text(encode("".join(texts)), encode("".join(held_out)))
