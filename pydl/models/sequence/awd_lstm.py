"""AWD-LSTM: Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", 2017; the
network that ULMFiT tunes to a task (Howard, Ruder 2018).

Every part of an LSTM language model has its dropout. Some recurrent weights are dropped, the same
ones for all steps of a pass (weight drop); the masks of layers' inputs and outputs are the same for
all steps too (variational dropout, Gal and Ghahramani 2016); and some words are blotted out, the
same ones wherever they stand. Scores come from the embedding's own vectors.

The activations' penalties and the averaged SGD of the paper are matters of training, not of the
network.
"""

import itertools

import torch

from pydl import functional, nn
from pydl.models.model import Model

State = tuple[tuple[torch.Tensor, torch.Tensor], ...]  # of each layer h and c, [1, B, hidden]


class WeightDropLSTM(nn.LSTM):
    """One layer of :class:`pydl.nn.LSTM` of whose recurrent weights some are zero while it trains,
    each with the probability ``weight_drop``; the others are larger by 1 / (1 - ``weight_drop``).
    """

    def __init__(self, input_size: int, hidden_size: int, weight_drop: float = 0.5) -> None:
        super().__init__(input_size, hidden_size)
        self.weight_drop = weight_drop

    def forward(self, input, hx=None):  # annotated in the base
        if not self.training:
            return super().forward(input, hx)
        weight_hh = functional.dropout(self.weight_hh_l0, self.weight_drop)
        y, (h, c) = functional.lstm(
            input,
            self.weight_ih_l0,
            weight_hh,
            self.bias_ih_l0,
            self.bias_hh_l0,
            None if hx is None else (hx[0][0], hx[1][0]),
            backend=self.backend,
        )
        return y, (h[None], c[None])


class VariationalDropout(nn.Dropout):
    """Dropout of (T, B, units) whose mask is the same at all T steps."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return input
        return input * functional.dropout(torch.ones_like(input[:1]), self.p)


class WordDropout(nn.Embedding):
    """An embedding of whose words each has only zeros with the probability ``p`` in a pass of
    training, the others being larger by 1 / (1 - ``p``)."""

    def __init__(self, words: int, size: int, p: float) -> None:
        super().__init__(words, size)
        self.p = p

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.p:
            return super().forward(input)
        mask = functional.dropout(self.weight.new_ones(len(self.weight), 1), self.p)
        return nn.functional.embedding(input, self.weight * mask)


class AWDLSTM(nn.Module):
    """Scores of the next word after each.

    Args:
        words: how many there are.
        embedding: size of a word's vector, and of the last layer's state.
        hidden: size of the other layers' states.
        layers: how many there are.
        word_dropout, dropout_in, dropout_between, dropout_out, weight_drop: of words, of the first
            layer's input, of that of the others, of the last one's output, of recurrent weights.
    """

    def __init__(
        self,
        words: int,
        *,
        embedding: int = 400,
        hidden: int = 1150,
        layers: int = 3,
        word_dropout: float = 0.1,
        dropout_in: float = 0.4,
        dropout_between: float = 0.25,
        dropout_out: float = 0.4,
        weight_drop: float = 0.5,
    ) -> None:
        super().__init__()
        self.embedding = WordDropout(words, embedding, word_dropout)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        sizes = [embedding, *[hidden] * (layers - 1), embedding]
        rates = [dropout_in, *[dropout_between] * (layers - 1)]
        self.dropouts = nn.ModuleList([VariationalDropout(rate) for rate in rates])
        self.layers = nn.ModuleList(
            [WeightDropLSTM(*pair, weight_drop) for pair in itertools.pairwise(sizes)]
        )
        self.dropout = VariationalDropout(dropout_out)
        self.scores = nn.Linear(embedding, words)
        self.scores.weight = self.embedding.weight
        nn.init.zeros_(self.scores.bias)

    def forward(self, text: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """From (T, B) numbers of words, and the state before them, to (T, B, words) scores and the
        state after."""
        x = self.embedding(text)  # [T, B, embedding]
        after = []
        before = state or (None,) * len(self.layers)
        for dropout, layer, one in zip(self.dropouts, self.layers, before, strict=True):
            x, one = layer(dropout(x), one)
            after.append(one)
        return self.scores(self.dropout(x)), tuple(after)


def awd_lstm_ptb() -> AWDLSTM:
    """The paper's, for the 10,000 words of the Penn Treebank."""
    return AWDLSTM(10_000)


def awd_lstm_wt2() -> AWDLSTM:
    """The paper's, for the 33,278 words of WikiText-2."""
    return AWDLSTM(33_278, dropout_in=0.65, dropout_between=0.2)


MODELS = tuple(
    Model(
        build.__name__,
        build,
        (70,),
        f"AWD-LSTM for {corpus}",
        "Merity, Keskar, Socher 2017, Regularizing and Optimizing LSTM Language Models",
        task="language",
        tokens=tokens,
        small=(6,),
        parameters=parameters,
    )
    for build, corpus, tokens, parameters in (
        (awd_lstm_ptb, "the Penn Treebank", 10_000, 24_221_600),
        (awd_lstm_wt2, "WikiText-2", 33_278, 33_556_078),
    )
)
