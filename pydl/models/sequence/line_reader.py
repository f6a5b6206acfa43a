"""A line of text read with attention: the recognition network of Shi, Wang, Lyu, Yao, Bai, "Robust
Scene Text Recognition with Automatic Rectification" (RARE), 2016.

The columns are those of CRNN, but where that scores a character in each column and CTC drops what
is said twice, a decoder writes the characters one after the other and looks for each at the columns
that it needs.
"""

from typing import Any

import torch

from pydl.models.model import Model
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.crnn import Columns
from pydl.models.sequence.decoder import State
from pydl.models.sequence.writer import Writer


class LineReader(Writer):
    """Writes what stands in a line.

    Args:
        columns: what makes them of an image.
        symbols: how many there are, the decoder's own among them.
        cell: the paper's is a GRU.
        options: of :class:`Writer`.
    """

    def __init__(self, columns: Columns, symbols: int, *, cell: str = "gru", **options: Any):
        super().__init__(columns.size, columns.size, symbols, cell=cell, **options)
        self.columns = columns

    def read(self, images: torch.Tensor) -> tuple[State, Memory]:
        """What the decoder starts from: the mean of the columns, and all W // 4 + 1 of them, of
        images (B, channels, 32, W)."""
        values = self.columns(images).transpose(0, 1).contiguous()  # [B, T, size]
        return self.begin(values.mean(1), values)


def line_reader() -> LineReader:
    """As wide as the paper's, for 26 letters and 10 digits."""
    return LineReader(Columns(), 39, embedding=64, hidden=256, maxout=128)


MODELS = (
    Model(
        "line_reader",
        line_reader,
        (1, 32, 100),
        "a line of text from CRNN's columns, character by character with attention",
        "Shi, Wang, Lyu, Yao, Bai 2016, Robust Scene Text Recognition with Automatic Rectification",
        task="reading",
        tokens=39,
        small=(1, 32, 16),
        target=(3,),
        parameters=9_501_287,
    ),
)
