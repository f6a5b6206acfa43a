"""A network that reads with an encoder of its own and writes with the one decoder: what
translators, captioners and readers of lines share."""

from collections.abc import Callable

import torch

from pydl import nn
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.decoder import Decoder, State
from pydl.models.sequence.search import Written, beam, greedy


class Writer(nn.Module):
    """Writes symbols about what it has read. A network of this kind has a ``read``, which takes its
    input and returns what :meth:`begin` does.

    Args:
        first: how many numbers the decoder's first state is made of.
        memory: size of a vector of the memory.
        symbols: how many there are, the decoder's own among them.
        cell, reset_before, attention, embedding, hidden, maxout, dropout: see :class:`Decoder`.
    """

    read: Callable[..., tuple[State, Memory]]

    def __init__(
        self,
        first: int,
        memory: int,
        symbols: int,
        *,
        cell: str = "lstm",
        reset_before: bool = False,
        attention: str | None = "additive",
        embedding: int = 32,
        hidden: int = 96,
        maxout: int = 48,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(first, hidden), nn.Tanh())
        self.decoder = Decoder(
            symbols,
            memory,
            cell=cell,
            reset_before=reset_before,
            attention=attention,
            embedding=embedding,
            hidden=hidden,
            maxout=maxout,
            dropout=dropout,
        )

    def begin(
        self, first: torch.Tensor, values: torch.Tensor, blank: torch.Tensor | None = None
    ) -> tuple[State, Memory]:
        """What the decoder starts from: its state, of (B, first) numbers, and its memory of
        (B, S, memory) vectors, of which (B, S) are ``blank``."""
        return self.decoder.begin(self.first(first)), self.decoder.remember(values, blank)

    def forward(
        self, input: torch.Tensor, target: torch.Tensor, *more: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """With the right target before each step.

        Args:
            input: what ``read`` takes first.
            target: (T, B) symbols, int64, the first of each being ``decoder.BEGIN``.
            more: what ``read`` takes besides.

        Returns:
            (T, B, symbols) scores of what comes behind each symbol of the target, and (T, B, S)
            weights: at which step which place of the memory was read.
        """
        return self.decoder(target, *self.read(input, *more))

    def write(
        self, input: torch.Tensor, *more: torch.Tensor | None, longest: int = 30, width: int = 1
    ) -> Written:
        """What it writes by itself: :func:`greedy`, or :func:`beam` with a ``width`` above 1."""
        with torch.no_grad():
            state, memory = self.read(input, *more)
        if width == 1:
            return greedy(self.decoder, state, memory, longest)
        return beam(self.decoder, state, memory, longest, width)
