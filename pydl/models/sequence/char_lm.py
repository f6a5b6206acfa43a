"""The character language model: Graves, "Generating Sequences With Recurrent Neural Networks",
2013; Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015."""

from typing import Any

import torch

from pydl import nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class CharLM(nn.Module):
    """Scores of the next character after each: embedding, one recurrent layer, linear.

    Args:
        characters: in the alphabet.
        cell: ``lstm``, ``gru`` or ``rnn``.
        hidden: size of the state.
        embedding: size of a character's vector.
        reset_before: a GRU whose reset acts before the recurrent product, as in Cho et al. 2014.

    Raises:
        ValueError: there is no such cell, or it has no reset to move.
    """

    def __init__(
        self,
        characters: int,
        cell: str = "lstm",
        *,
        hidden: int = 256,
        embedding: int = 64,
        reset_before: bool = False,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {', '.join(CELLS)}, got {cell!r}")
        if reset_before and cell != "gru":
            raise ValueError("only a GRU can reset before the product")
        more: dict[str, Any] = {"reset_after": False} if reset_before else {}
        self.embedding = nn.Embedding(characters, embedding)
        self.recurrent = CELLS[cell](embedding, hidden, **more)
        self.scores = nn.Linear(hidden, characters)

    def forward(self, text: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """From (T, B) numbers of characters, and the state before them, to (T, B, characters)
        scores and the state after."""
        h, state = self.recurrent(self.embedding(text), state)  # [T, B, hidden]
        return self.scores(h), state  # [T, B, characters]
