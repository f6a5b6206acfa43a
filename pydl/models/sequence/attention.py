"""Attention: which parts of a memory a decoder reads at a step.

A memory is what an encoder leaves, a vector for each place of a sequence or of a map. A query, the
decoder's state, is scored against each; the softmax of the scores are the weights, non-negative
with the sum 1, and the weighted mean of the memory is what is read.
"""

from typing import NamedTuple

import torch

from pydl import nn


class Memory(NamedTuple):
    """What is attended to."""

    values: torch.Tensor  # [B, S, M]
    keys: torch.Tensor  # [B, S, A]: what queries are compared with, the same at every step
    blank: torch.Tensor | None  # [B, S], bool: places that are padding; None where none is

    def select(self, which: torch.Tensor) -> "Memory":
        """Those of the examples ``which``, int64."""
        blank = None if self.blank is None else self.blank[which]
        return Memory(self.values[which], self.keys[which], blank)


class Product(nn.Module):
    """:func:`torch.bmm`, as a layer: what layers cost is counted (:mod:`pydl.models.summary`)."""

    def forward(self, input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return torch.bmm(input, other)


class Attention(nn.Module):
    """What both kinds share: the memory's part of the scores, made once, and the reading."""

    def __init__(self, memory: int, size: int) -> None:
        super().__init__()
        self.key = nn.Linear(memory, size, bias=False)
        self.weigh = nn.Softmax(1)
        self.read = Product()

    def remember(self, values: torch.Tensor, blank: torch.Tensor | None = None) -> Memory:
        """Of (B, S, memory) vectors, and which of them (B, S) are padding."""
        return Memory(values, self.key(values), blank)

    def score(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(B, S) scores of a query (B, Q) against keys (B, S, A)."""
        raise NotImplementedError

    def forward(self, query: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """What a query (B, Q) reads, (B, memory), and the weights (B, S) that it does so with."""
        scores = self.score(query, memory.keys)
        if memory.blank is not None:
            scores = scores.masked_fill(memory.blank, -torch.inf)
        weights = self.weigh(scores)
        return self.read(weights[:, None], memory.values)[:, 0], weights


class AdditiveAttention(Attention):
    """Scores v' tanh(W q + U m): a network with one hidden layer.

    Args:
        query: size Q of a query.
        memory: size M of a vector of the memory.
        size: A, of the hidden layer.

    Source: Bahdanau, Cho, Bengio 2015, Neural Machine Translation by Jointly Learning to Align and
    Translate.
    """

    def __init__(self, query: int, memory: int, size: int) -> None:
        super().__init__(memory, size)
        self.query = nn.Linear(query, size, bias=False)
        self.energy = nn.Linear(size, 1, bias=False)

    def score(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.energy(torch.tanh(self.query(query)[:, None] + keys))[..., 0]


class MultiplicativeAttention(Attention):
    """Scores q' W m, the paper's "general" form.

    Args:
        query: size Q of a query, and of the keys.
        memory: size M of a vector of the memory.

    Source: Luong, Pham, Manning 2015, Effective Approaches to Attention-based Neural Machine
    Translation.
    """

    def __init__(self, query: int, memory: int) -> None:
        super().__init__(memory, query)
        self.compare = Product()

    def score(self, query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return self.compare(keys, query[..., None])[..., 0]
