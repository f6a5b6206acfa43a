"""Translation with attention: Bahdanau, Cho, Bengio, "Neural Machine Translation by Jointly
Learning to Align and Translate", ICLR 2015 (RNNsearch).

An encoder reads the source in both directions, and a decoder writes the target, reading at each
step the places of the source that it needs. Its GRUs are those of Cho et al. 2014 and of the
lectures: the reset acts before the recurrent product.
"""

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pydl import nn
from pydl.models.model import Model
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.decoder import State
from pydl.models.sequence.writer import Writer


class Encoder(nn.Module):
    """Embedding and one GRU in both directions.

    Args:
        symbols: of the source, 0 being padding.
        embedding, hidden: sizes of a symbol's vector and of the state in each direction.
        reset_before: where the reset acts.
    """

    def __init__(self, symbols: int, embedding: int, hidden: int, reset_before: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, embedding)
        self.recurrent = nn.GRU(embedding, hidden, bidirectional=True, reset_after=not reset_before)

    def forward(
        self, source: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of (S, B) symbols the states after each in both directions, (S, B, 2 hidden), zeros in
        the padding, and the backward direction's last, (B, hidden).

        ``lengths`` (B,), int64, on the CPU, are those of the sources; None where none is padded.
        """
        x = self.embedding(source)  # [S, B, embedding]
        if lengths is None:
            states, last = self.recurrent(x)
        else:
            packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
            states, last = self.recurrent(packed)
            states, _ = pad_packed_sequence(states, total_length=len(source))
        return states, last[1]


class Translator(Writer):
    """From symbols of one sequence to those of another.

    Args:
        source, target: how many symbols there are of each, the decoder's own among the target's;
            the source's symbol 0 is padding.
        embedding, hidden: sizes of a symbol's vector and of a state.
        reset_before: where the reset of GRUs acts.
        cell, attention, maxout, dropout: see :class:`Writer`.
    """

    def __init__(
        self,
        source: int,
        target: int,
        *,
        embedding: int = 64,
        hidden: int = 128,
        reset_before: bool = True,
        cell: str = "gru",
        attention: str | None = "additive",
        maxout: int = 64,
        dropout: float = 0.0,
    ) -> None:
        encoder = Encoder(source, embedding, hidden, reset_before)
        super().__init__(
            hidden,
            2 * hidden,
            target,
            cell=cell,
            reset_before=reset_before and cell == "gru",
            attention=attention,
            embedding=embedding,
            hidden=hidden,
            maxout=maxout,
            dropout=dropout,
        )
        self.encoder = encoder

    def read(
        self, source: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[State, Memory]:
        """What a decoder starts from: the encoder's last state, and all of its states.

        Args:
            source: (S, B) symbols, int64.
            lengths: (B,), int64, on the CPU: of the sources; None where none is padded.
        """
        states, last = self.encoder(source, lengths)
        values = states.transpose(0, 1).contiguous()  # [B, S, 2 hidden]
        blank = None
        if lengths is not None:
            places = torch.arange(len(source), device=source.device)
            blank = places >= lengths.to(source.device)[:, None]  # [B, S]
        return self.begin(last, values, blank)


def rnnsearch() -> Translator:
    """The paper's, for 30,000 words of each language."""
    return Translator(30_000, 30_000, embedding=620, hidden=1000, maxout=500)


MODELS = (
    Model(
        "rnnsearch",
        rnnsearch,
        (50,),
        "translation with attention, GRUs that reset before the product",
        "Bahdanau, Cho, Bengio 2015, Neural Machine Translation by Jointly Learning to Align and "
        "Translate",
        task="translation",
        tokens=30_000,
        small=(6,),
        target=(1,),
        parameters=80_451_000,
    ),
)
