"""ELMo: Peters, Neumann, Iyyer, Gardner, Clark, Lee, Zettlemoyer, "Deep Contextualized Word
Representations", NAACL 2018.

A word's vector is made of its characters, by convolutions and their maxima, whatever the word is.
Then two language models read the sentence, one forwards, one backwards, each of two LSTMs with
projection. A task takes a mixture of the layers: the word's own vector, which is the same in every
sentence, and those above it, which are not.

The published networks also cut the cells' states and projections off at 3 in training; these do
not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from pydl import functional, nn
from pydl.models.model import Model

# Numbers of characters are bytes plus 1, and these.
PADDING, BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, BLANK = 0, *range(257, 262)
CHARACTERS, WORD = 262, 50  # how many there are; of a word, its first and last mark included

# Widths of the convolutions, and how many maps each has.
_FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


def characters(sentence: Sequence[str]) -> torch.Tensor:
    """The characters of words, between marks of the sentence: (T + 2, 50), int64. Longer words are
    cut off."""

    def word(numbers: Sequence[int]) -> list[int]:
        kept = [BEGIN_WORD, *numbers[: WORD - 2], END_WORD]
        return kept + [BLANK] * (WORD - len(kept))

    of_words = [[byte + 1 for byte in one.encode()] for one in sentence]
    return torch.tensor([word(one) for one in ([BEGIN_SENTENCE], *of_words, [END_SENTENCE])])


class Highway(nn.Module):
    """g x + (1 - g) relu(W x + b), g = sigmoid(V x + c): Srivastava, Greff, Schmidhuber 2015."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.both = nn.Linear(size, 2 * size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        new, gate = self.both(x).chunk(2, -1)
        gate = torch.sigmoid(gate)
        return gate * x + (1 - gate) * torch.relu(new)


class CharacterCNN(nn.Module):
    """Words' vectors from their characters.

    Args:
        size: of a vector.
        highways: layers of :class:`Highway`.
    """

    def __init__(self, size: int, highways: int) -> None:
        super().__init__()
        maps = sum(count for _, count in _FILTERS)
        self.embedding = nn.Embedding(CHARACTERS, 16)
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(16, count, width) for width, count in _FILTERS]
        )
        self.most = nn.AdaptiveMaxPool1d(1)
        self.highways = nn.Sequential(*[Highway(maps) for _ in range(highways)])
        self.projection = nn.Linear(maps, size)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """(N, size) of (N, 50) characters."""
        x = self.embedding(words).transpose(1, 2)  # [N, 16, 50]
        maxima = [self.most(convolution(x))[..., 0] for convolution in self.convolutions]
        return self.projection(self.highways(torch.relu(torch.cat(maxima, 1))))


class DirectedLSTM(nn.LSTM):
    """One layer of :class:`pydl.nn.LSTM` with projection that reads in one direction, whose gates
    have one bias and not two, as TensorFlow's.

    Args:
        size: of the input and of the projection.
        cells: of the state c.
        reverse: from each sentence's end to its beginning.
    """

    def __init__(self, size: int, cells: int, reverse: bool) -> None:
        super().__init__(size, cells, proj_size=size)
        self.reverse = reverse
        del self.bias_hh_l0
        self.register_buffer("bias_hh_l0", torch.zeros(4 * cells), persistent=False)
        self._init_flat_weights()

    def forward(self, input, hx=None):  # annotated in the base
        packed = isinstance(input, PackedSequence)
        y, state = functional.lstm(
            input.data if packed else input,
            self.weight_ih_l0,
            self.weight_hh_l0,
            self.bias_ih_l0,
            self.bias_hh_l0,
            hx,
            weight_hr=self.weight_hr_l0,
            batch_sizes=input.batch_sizes if packed else None,
            reverse=self.reverse,
            backend=self.backend,
        )
        return (input._replace(data=y) if packed else y), state


class ELMo(nn.Module):
    """Three vectors for each word of a sentence.

    Args:
        cells: of an LSTM.
        size: of its projection; a vector has twice as many numbers.
        highways: between the characters' convolutions and the word's own vector.
    """

    def __init__(self, cells: int = 4096, size: int = 512, highways: int = 2) -> None:
        super().__init__()
        self.words = CharacterCNN(size, highways)
        self.forwards, self.backwards = (
            nn.ModuleList([DirectedLSTM(size, cells, reverse) for _ in range(2)])
            for reverse in (False, True)
        )

    def forward(self, words: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """(3, T, B, 2 size): the word's own vector, twice, and the outputs of both layers forwards
        and backwards; zeros in the padding.

        Args:
            words: (T, B, 50) characters, int64: see :func:`characters`.
            lengths: (B,), int64, on the CPU, of the sentences; None where none is padded.
        """
        steps, batch, _ = words.shape
        own = self.words(words.flatten(0, 1)).view(steps, batch, -1)  # [T, B, size]
        x = own
        if lengths is not None:
            x = pack_padded_sequence(own, lengths, enforce_sorted=False)
            own, _ = pad_packed_sequence(x, total_length=steps)
        layers = [torch.cat([own, own], 2)]
        read = [x, x]
        for pair in zip(self.forwards, self.backwards, strict=True):
            found = [layer(one)[0] for layer, one in zip(pair, read, strict=True)]
            if len(layers) > 1:  # the second layer adds to the first
                found = [_sum(one, below) for one, below in zip(found, read, strict=True)]
            read = found
            layers.append(torch.cat([_padded(one, steps) for one in read], 2))
        return torch.stack(layers)


def _sum(one: Any, other: Any) -> Any:
    if isinstance(one, PackedSequence):
        return one._replace(data=one.data + other.data)
    return one + other


def _padded(one: Any, steps: int) -> torch.Tensor:
    if isinstance(one, PackedSequence):
        return pad_packed_sequence(one, total_length=steps)[0]
    return one


class Mixture(nn.Module):
    """What a task takes of the layers: their sum, weighted by a softmax, times a factor."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(layers))
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, layers: torch.Tensor) -> torch.Tensor:
        """(...) of (layers, ...)."""
        return self.factor * torch.tensordot(functional.softmax(self.weight, 0), layers, 1)


def elmo_small() -> ELMo:
    """The smallest that was published."""
    return ELMo(1024, 128, highways=1)


def elmo_medium() -> ELMo:
    """The one in the middle."""
    return ELMo(2048, 256, highways=1)


def elmo() -> ELMo:
    """The paper's."""
    return ELMo()


MODELS = tuple(
    Model(
        build.__name__,
        build,
        (20, WORD),
        f"ELMo{about}: words by their characters, read in both directions",
        "Peters, Neumann, Iyyer, Gardner, Clark, Lee, Zettlemoyer 2018, Deep Contextualized Word "
        "Representations",
        task="word vectors",
        tokens=CHARACTERS,
        small=(3, WORD),
        parameters=parameters,
    )
    for build, about, parameters in (
        (elmo_small, ", small", 13_593_312),
        (elmo_medium, ", medium", 28_027_744),
        (elmo, "", 93_600_864),
    )
)
