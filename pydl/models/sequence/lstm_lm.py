"""Recurrent language models of words: Zaremba, Sutskever, Vinyals, "Recurrent Neural Network
Regularization", 2014.

Dropout acts where it does not disturb what the LSTM remembers: before it, between its layers and
behind it.
"""

import torch

from pydl import nn
from pydl.models.model import Model

State = tuple[torch.Tensor, torch.Tensor]


class LSTMLM(nn.Module):
    """Scores of the next word after each: embedding, LSTM, linear.

    Args:
        words: how many there are.
        hidden: size of a word's vector and of each layer's state.
        layers: of the LSTM.
        dropout: see the module.
    """

    def __init__(
        self, words: int, *, hidden: int = 650, layers: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.before, self.behind = nn.Dropout(dropout), nn.Dropout(dropout)
        self.recurrent = nn.LSTM(hidden, hidden, layers, dropout=dropout)
        self.scores = nn.Linear(hidden, words)

    def forward(self, text: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """From (T, B) numbers of words, and the state before them, to (T, B, words) scores and the
        state after."""
        x = self.before(self.embedding(text))  # [T, B, hidden]
        h, state = self.recurrent(x, state)
        return self.scores(self.behind(h)), state


def lstm_lm_medium() -> LSTMLM:
    """The paper's medium one, for the 10,000 words of the Penn Treebank."""
    return LSTMLM(10_000)


def lstm_lm_large() -> LSTMLM:
    """The paper's large one."""
    return LSTMLM(10_000, hidden=1500, dropout=0.65)


MODELS = tuple(
    Model(
        build.__name__,
        build,
        (35,),
        f"LSTM language model of the Penn Treebank, {size}",
        "Zaremba, Sutskever, Vinyals 2014, Recurrent Neural Network Regularization",
        task="language",
        tokens=10_000,
        small=(6,),
        parameters=parameters,
    )
    for build, size, parameters in (
        (lstm_lm_medium, "medium", 19_780_400),
        (lstm_lm_large, "large", 66_034_000),
    )
)
