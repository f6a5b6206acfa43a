"""The recurrent decoder with attention: one step writes one symbol, having read what it needs.

It is that of Bahdanau, Cho, Bengio 2015 (appendix A.2.2), with the state h, the memory's vectors m
and the symbol y written last:

    c = attention(h, m)
    h' = cell([E y, c], h)
    p = softmax(V max(U [h', E y, c])), where max takes the greater of each two neighbours

What is decoded is the memory's matter: words of another language, places of a picture.
"""

from typing import Any

import torch

from pydl import nn
from pydl.models.sequence.attention import (
    AdditiveAttention,
    Attention,
    Memory,
    MultiplicativeAttention,
)

# The numbers that symbols of their own begin behind.
PADDING, BEGIN, END = range(3)

State = tuple[torch.Tensor, ...]  # h, or h and c, each [B, hidden]

_ATTENTIONS = ("additive", "multiplicative")


class Decoder(nn.Module):
    """Writes symbols, one after the other, from a memory and a first state.

    Args:
        symbols: how many there are, :data:`PADDING`, :data:`BEGIN` and :data:`END` among them.
        memory: size of a vector of the memory.
        cell: ``gru`` or ``lstm``.
        reset_before: a GRU whose reset acts before the recurrent product, as in the paper.
        attention: ``additive``, ``multiplicative``, or None: without, all it knows is its first
            state.
        embedding, hidden: sizes of a symbol's vector and of the state.
        size: of the hidden layer of additive attention; None for ``hidden``.
        maxout: how many maxima of two the scores are made of.
        dropout: of these maxima.

    Raises:
        ValueError: there is no such cell or attention, or no reset to move.
    """

    def __init__(
        self,
        symbols: int,
        memory: int,
        *,
        cell: str = "gru",
        reset_before: bool = False,
        attention: str | None = "additive",
        embedding: int = 64,
        hidden: int = 128,
        size: int | None = None,
        maxout: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell must be gru or lstm, got {cell!r}")
        if reset_before and cell != "gru":
            raise ValueError("only a GRU can reset before the product")
        self.embedding = nn.Embedding(symbols, embedding)
        self.attention: Attention | None = None
        if attention == "additive":
            self.attention = AdditiveAttention(hidden, memory, size or hidden)
        elif attention == "multiplicative":
            self.attention = MultiplicativeAttention(hidden, memory)
        elif attention is not None:
            raise ValueError(
                f"attention must be {' or '.join(_ATTENTIONS)} or None, got {attention!r}"
            )
        read = embedding + (0 if self.attention is None else memory)
        more: dict[str, Any] = {"reset_after": False} if reset_before else {}
        self.cell = (nn.LSTMCell if cell == "lstm" else nn.GRUCell)(read, hidden, **more)
        self.deep = nn.Linear(hidden + read, 2 * maxout)
        self.maxout = nn.MaxPool1d(2)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.scores = nn.Linear(maxout, symbols)

    def remember(self, values: torch.Tensor, blank: torch.Tensor | None = None) -> Memory:
        """The memory of (B, S, memory) vectors, of which (B, S) are ``blank``."""
        if self.attention is None:
            return Memory(values, values, blank)
        return self.attention.remember(values, blank)

    def begin(self, h: torch.Tensor) -> State:
        """The first state, of (B, hidden) numbers; an LSTM's c is 0."""
        return (h, torch.zeros_like(h)) if isinstance(self.cell, torch.nn.LSTMCell) else (h,)

    def step(
        self, written: torch.Tensor, state: State, memory: Memory
    ) -> tuple[torch.Tensor, State, torch.Tensor]:
        """Reads the memory and goes on by one symbol.

        Args:
            written: (B,) the symbols before, int64.
            state: after them.
            memory: of :meth:`remember`.

        Returns:
            (B, symbols) scores of the next, the state after that, and the (B, S) weights that the
            memory was read with, zeros without attention.
        """
        x = self.embedding(written)  # [B, embedding]
        if self.attention is None:
            weights = memory.values.new_zeros(memory.values.shape[:2])
        else:
            context, weights = self.attention(state[0], memory)  # [B, memory], [B, S]
            x = torch.cat([x, context], 1)
        if isinstance(self.cell, torch.nn.LSTMCell):
            h, c = self.cell(x, (state[0], state[1]))
            state = h, c
        else:
            state = (self.cell(x, state[0]),)
        deep = self.deep(torch.cat([state[0], x], 1))  # [B, 2 maxout]
        return self.scores(self.dropout(self.maxout(deep))), state, weights

    def forward(
        self, target: torch.Tensor, state: State, memory: Memory
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Teacher forcing: at each step the symbol before is the right one, whatever was scored.

        Args:
            target: (T, B) symbols, the first of each being :data:`BEGIN`.
            state: the first.
            memory: of :meth:`remember`.

        Returns:
            (T, B, symbols) scores of what comes behind each, and the (T, B, S) weights.
        """
        scores, weights = [], []
        for written in target:
            score, state, weight = self.step(written, state, memory)
            scores.append(score)
            weights.append(weight)
        return torch.stack(scores), torch.stack(weights)
