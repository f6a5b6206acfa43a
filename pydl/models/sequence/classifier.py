"""Classes of sequences, many to one as the lectures call it: a bidirectional LSTM reads a text, and
all of its states decide.

What they decide by is concat pooling: Howard, Ruder, "Universal Language Model Fine-tuning for Text
Classification" (ULMFiT), 2018, section 3.3, whose classifier on AWD-LSTM is here too.
"""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pydl import nn
from pydl.models.model import Model
from pydl.models.sequence.awd_lstm import AWDLSTM, awd_lstm_wt2


class ConcatPooling(nn.Module):
    """The last state of a text beside the maxima and the means of all of them: (B, 3 size) of
    (T, B, size) states, of which each text has its ``lengths`` (B,)."""

    def forward(self, states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        if lengths is None:
            return torch.cat([states[-1], states.amax(0), states.mean(0)], 1)
        lengths = lengths.to(states.device)
        places = torch.arange(len(states), device=states.device)
        behind = (places[:, None] >= lengths)[..., None]  # [T, B, 1]
        last = states[lengths - 1, torch.arange(len(lengths), device=states.device)]
        most = states.masked_fill(behind, -torch.inf).amax(0)
        mean = states.masked_fill(behind, 0).sum(0) / lengths[:, None]
        return torch.cat([last, most, mean], 1)


class SequenceClassifier(nn.Module):
    """Scores of a text's classes.

    Args:
        symbols: how many there are, 0 being padding.
        classes: how many there are.
        embedding, hidden: sizes of a symbol's vector and of the state in each direction.
        dropout: of what the states are pooled to.
    """

    def __init__(
        self,
        symbols: int,
        classes: int,
        *,
        embedding: int = 32,
        hidden: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.recurrent = nn.LSTM(embedding, hidden, bidirectional=True)
        self.pooling = ConcatPooling()
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(6 * hidden, classes)

    def forward(self, text: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(B, classes) of (T, B) symbols, int64; ``lengths`` (B,), int64, on the CPU, are those of
        the texts, None where none is padded."""
        x = self.embedding(text)  # [T, B, embedding]
        if lengths is None:
            states, _ = self.recurrent(x)
        else:
            packed, _ = self.recurrent(pack_padded_sequence(x, lengths, enforce_sorted=False))
            states, _ = pad_packed_sequence(packed, total_length=len(text))
        return self.scores(self.dropout(self.pooling(states, lengths)))


class ULMFiT(nn.Module):
    """A language model's states, pooled, and two fully connected layers with batch normalisation
    that make scores of classes of them.

    Args:
        model: a language model that has learned; its embedding and layers become this network's.
        classes: how many there are.
        hidden: of the first fully connected layer.
        dropout: of what the states are pooled to, and of the hidden layer.
    """

    def __init__(
        self,
        model: AWDLSTM,
        classes: int,
        *,
        hidden: int = 50,
        dropout: Sequence[float] = (0.4, 0.1),
    ) -> None:
        super().__init__()
        self.embedding, self.dropouts, self.layers = model.embedding, model.dropouts, model.layers
        self.last_dropout = model.dropout
        self.pooling = ConcatPooling()
        size = 3 * self.embedding.embedding_dim
        self.head = nn.Sequential(
            nn.BatchNorm1d(size),
            nn.Dropout(dropout[0]),
            nn.Linear(size, hidden),
            nn.ReLU(),
            nn.BatchNorm1d(hidden),
            nn.Dropout(dropout[1]),
            nn.Linear(hidden, classes),
        )

    def groups(self) -> list[nn.Module]:
        """What is tuned one after the other, from the first layer to the last."""
        return [self.embedding, *self.layers, self.head]

    def forward(self, text: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(B, classes) of (T, B) symbols, int64. Padding lies behind the texts: the language model
        reads it after them."""
        x = self.embedding(text)  # [T, B, embedding]
        for dropout, layer in zip(self.dropouts, self.layers, strict=True):
            x, _ = layer(dropout(x))
        return self.head(self.pooling(self.last_dropout(x), lengths))


def sequence_classifier() -> SequenceClassifier:
    """For 128 symbols and 18 classes."""
    return SequenceClassifier(128, 18)


def ulmfit() -> ULMFiT:
    """The paper's, on AWD-LSTM of WikiText-2's words, for the 2 classes of IMDb."""
    return ULMFiT(awd_lstm_wt2(), 2)


MODELS = (
    Model(
        "sequence_classifier",
        sequence_classifier,
        (20,),
        "the class of a text by a bidirectional LSTM and concat pooling",
        "the lectures' many to one; the pooling of Howard, Ruder 2018",
        task="classes of texts",
        tokens=128,
        small=(6,),
        parameters=61_202,
    ),
    Model(
        "ulmfit",
        ulmfit,
        (70,),
        "the class of a text by a tuned AWD-LSTM",
        "Howard, Ruder 2018, Universal Language Model Fine-tuning for Text Classification",
        task="classes of texts",
        tokens=33_278,
        small=(6,),
        parameters=33_585_452,
    ),
)
