"""CRNN: Shi, Bai, Yao, "An End-to-End Trainable Neural Network for Image-Based Sequence Recognition
and Its Application to Scene Text Recognition", 2015.

Convolutions make a line of text into columns of features, two bidirectional LSTMs read these from
both sides, and each column gets scores of the characters and of a blank. What is written then is
found by :mod:`pydl.models.sequence.ctc`.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model

MAPS = (64, 128, 256, 256, 512, 512, 512)  # of the paper's seven convolutions
# Behind which convolutions there is a pool: the last two halve the height alone.
_HALF = {0, 1}
_HALF_HEIGHT = {3, 5}
NORMS = (4, 5)  # the paper's: behind which convolutions there is a batch normalisation


class Columns(nn.Module):
    """Columns of a line of text: features that LSTMs have read from both sides.

    Args:
        channels: of the image.
        maps: of the seven convolutions.
        norms: behind which of them there is a batch normalisation.
        layers: how many bidirectional LSTMs there are; the paper's are two.
        hidden: size of their states in each direction.
        dropout: of the columns' features.
    """

    def __init__(
        self,
        *,
        channels: int = 1,
        maps: Sequence[int] = MAPS,
        norms: Collection[int] = NORMS,
        layers: int = 2,
        hidden: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features: list[nn.Module] = []
        before = channels
        for i, count in enumerate(maps):
            last = i == len(maps) - 1  # it takes the last two rows at once
            features.append(nn.Conv2d(before, count, 2 if last else 3, padding=0 if last else 1))
            if i in norms:
                features.append(nn.BatchNorm2d(count))
            features.append(nn.ReLU())
            if i in _HALF:
                features.append(nn.MaxPool2d(2))
            elif i in _HALF_HEIGHT:
                features.append(nn.MaxPool2d(2, (2, 1), (0, 1)))
            before = count
        self.features = nn.Sequential(*features)
        he(self.features)
        self.dropout = nn.Dropout(dropout)
        sizes = [before, *(layers - 1) * [hidden]]
        self.recurrent = nn.ModuleList(nn.LSTM(size, hidden, bidirectional=True) for size in sizes)
        self.between = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in sizes[1:])
        self.size = 2 * hidden

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(T, B, size) states from (B, channels, 32, W) images, T being W // 4 + 1."""
        x = self.features(images)  # [B, maps, 1, T]
        if x.shape[2] != 1:
            raise ValueError(f"expected images 32 pixels high, got {images.shape[2]}")
        x = self.dropout(x[:, :, 0].permute(2, 0, 1).contiguous())  # [T, B, maps]
        for i, lstm in enumerate(self.recurrent):
            x, _ = lstm(self.between[i - 1](x) if i else x)  # [T, B, 2 hidden]
        return x


class CRNN(Columns):
    """Scores of the characters in each column.

    Args:
        symbols: how many there are, the blank, 0, among them.
        options: of :class:`Columns`.
    """

    def __init__(self, symbols: int, **options: Any) -> None:
        super().__init__(**options)
        self.scores = nn.Linear(self.size, symbols)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(T, B, symbols) scores from (B, channels, 32, W) images, T being W // 4 + 1."""
        return self.scores(super().forward(images))


def crnn() -> CRNN:
    """The paper's, for 26 letters and 10 digits."""
    return CRNN(37)


MODELS = (
    Model(
        "crnn",
        crnn,
        (1, 32, 100),
        "a line of text from convolutions and two bidirectional LSTMs, column by column",
        "Shi, Bai, Yao 2015, An End-to-End Trainable Neural Network for Image-Based Sequence "
        "Recognition and Its Application to Scene Text Recognition",
        task="reading",
        small=(1, 32, 16),
        parameters=8_330_789,
    ),
)
