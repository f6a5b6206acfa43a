"""Flair: Akbik, Blythe, Vollgraf, "Contextual String Embeddings for Sequence Labeling", 2018.

Two character language models, one that reads forwards and one that reads backwards. A word's vector
is what they know at its edges: the one when it has read the word and all before it, the other when
it has read it and all behind it.
"""

from collections.abc import Sequence

import torch

from pydl import nn
from pydl.models.model import Model
from pydl.models.sequence.char_lm import CharLM


class Flair(nn.Module):
    """Both language models.

    Args:
        characters: in the alphabet.
        embedding, hidden: sizes of a character's vector and of each model's state.
    """

    def __init__(self, characters: int, *, embedding: int = 100, hidden: int = 2048) -> None:
        super().__init__()
        self.forwards, self.backwards = (
            CharLM(characters, embedding=embedding, hidden=hidden) for _ in range(2)
        )

    def states(self, text: torch.Tensor) -> torch.Tensor:
        """What both know at each of (T, B) characters, having read it: (T, B, 2 hidden)."""
        ahead, _ = self.forwards.recurrent(self.forwards.embedding(text))
        back, _ = self.backwards.recurrent(self.backwards.embedding(text.flip(0)))
        return torch.cat([ahead, back.flip(0)], 2)

    def words(self, text: torch.Tensor, spans: Sequence[tuple[int, int]]) -> torch.Tensor:
        """Vectors (N, 2 hidden) of the words of one text (T,).

        Args:
            text: numbers of characters.
            spans: of each word the places of its first character and of the one behind its last;
                there are characters before and behind it, such as a space, which are read as well.

        Raises:
            ValueError: a word is at the text's edge.
        """
        if any(not 0 < first < behind < len(text) for first, behind in spans):
            raise ValueError(
                f"expected words with a character before and one behind them in {len(text)}, got "
                f"{list(spans)}"
            )
        ahead, back = self.states(text[:, None])[:, 0].chunk(2, 1)  # [T, hidden] each
        first, behind = (torch.tensor(places) for places in zip(*spans, strict=True))
        return torch.cat([ahead[behind], back[first - 1]], 1)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """(2, T, B, characters) scores: of what comes behind each of (T, B) characters, and of what
        is before it."""
        ahead, back = self.states(text).chunk(2, 2)
        return torch.stack([self.forwards.scores(ahead), self.backwards.scores(back)])


def flair() -> Flair:
    """The paper's, with the 275 characters of the published English models."""
    return Flair(275)


MODELS = (
    Model(
        "flair",
        flair,
        (80,),
        "Flair: words by what two character language models know at their edges",
        "Akbik, Blythe, Vollgraf 2018, Contextual String Embeddings for Sequence Labeling",
        task="word vectors",
        tokens=275,
        small=(6,),
        parameters=36_407_550,
    ),
)
