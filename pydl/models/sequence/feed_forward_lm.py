"""The feed-forward language model: Bengio, Ducharme, Vincent, Jauvin, "A Neural Probabilistic
Language Model", JMLR 2003."""

import torch

from pydl import nn
from pydl.models.model import Model


class FeedForwardLM(nn.Module):
    """Scores of the next word from the vectors of the ``context`` last words alone, joined to x:

        y = b + W x + U tanh(d + H x)

    Args:
        words: how many there are.
        context: words that are seen, n - 1 in the paper.
        embedding: size m of a word's vector.
        hidden: units of the hidden layer.
        direct: whether there is W.
    """

    def __init__(
        self,
        words: int,
        *,
        context: int = 4,
        embedding: int = 60,
        hidden: int = 50,
        direct: bool = True,
    ) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(words, embedding)
        self.hidden = nn.Sequential(nn.Linear(context * embedding, hidden), nn.Tanh())
        self.scores = nn.Linear(hidden, words)
        self.direct = nn.Linear(context * embedding, words, bias=False) if direct else None

    def forward(
        self, text: torch.Tensor, state: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From (T, B) numbers of words, and those before them, (context, B), to (T, B, words)
        scores and the words before the next ones. Before a text is word 0."""
        if state is None:
            state = text.new_zeros(self.context, text.shape[1])
        read = torch.cat([state, text])  # [context + T, B]
        seen = read.unfold(0, self.context, 1)[1:]  # [T, B, context]
        x = self.embedding(seen).flatten(2)  # [T, B, context * embedding]
        y = self.scores(self.hidden(x))  # [T, B, words]
        return (y if self.direct is None else y + self.direct(x)), read[len(text) :]


def feed_forward_lm() -> FeedForwardLM:
    """The paper's first network, MLP1 of its table 1, for the Brown corpus."""
    return FeedForwardLM(16_383)


MODELS = (
    Model(
        "feed_forward_lm",
        feed_forward_lm,
        (20,),
        "feed-forward language model of the Brown corpus",
        "Bengio, Ducharme, Vincent, Jauvin 2003, A Neural Probabilistic Language Model",
        task="language",
        tokens=16_383,
        small=(6,),
        parameters=5_762_483,
    ),
)
