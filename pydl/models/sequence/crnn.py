"""CRNN: Shi, Bai, Yao, "An End-to-End Trainable Neural Network for Image-Based Sequence Recognition
and Its Application to Scene Text Recognition", 2015.

Convolutions make a line of text into columns of features, two bidirectional LSTMs read these from
both sides, and each column gets scores of the characters and of a blank. What is written then is
found by :mod:`pydl.models.sequence.ctc`.
"""

from collections.abc import Sequence

import torch

from pydl import nn
from pydl.models.initial import he
from pydl.models.model import Model

MAPS = (64, 128, 256, 256, 512, 512, 512)  # of the paper's seven convolutions
# Behind which convolutions there is a pool: the last two halve the height alone.
_HALF = {0, 1}
_HALF_HEIGHT = {3, 5}
_NORM = {4, 5}


class CRNN(nn.Module):
    """Scores of the characters in each column.

    Args:
        symbols: how many there are, the blank, 0, among them.
        channels: of the image.
        maps: of the seven convolutions.
        hidden: size of the LSTMs' states in each direction.
        dropout: of the columns' features.
    """

    def __init__(
        self,
        symbols: int,
        *,
        channels: int = 1,
        maps: Sequence[int] = MAPS,
        hidden: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for i, count in enumerate(maps):
            last = i == len(maps) - 1  # it takes the last two rows at once
            layers.append(nn.Conv2d(before, count, 2 if last else 3, padding=0 if last else 1))
            if i in _NORM:
                layers.append(nn.BatchNorm2d(count))
            layers.append(nn.ReLU())
            if i in _HALF:
                layers.append(nn.MaxPool2d(2))
            elif i in _HALF_HEIGHT:
                layers.append(nn.MaxPool2d(2, (2, 1), (0, 1)))
            before = count
        self.features = nn.Sequential(*layers)
        he(self.features)
        self.dropout = nn.Dropout(dropout)
        self.first = nn.LSTM(before, hidden, bidirectional=True)
        self.between = nn.Linear(2 * hidden, hidden)
        self.second = nn.LSTM(hidden, hidden, bidirectional=True)
        self.scores = nn.Linear(2 * hidden, symbols)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(T, B, symbols) scores from (B, channels, 32, W) images, T being W // 4 + 1."""
        x = self.features(images)  # [B, maps, 1, T]
        if x.shape[2] != 1:
            raise ValueError(f"expected images 32 pixels high, got {images.shape[2]}")
        x = self.dropout(x[:, :, 0].permute(2, 0, 1).contiguous())  # [T, B, maps]
        x, _ = self.first(x)  # [T, B, 2 hidden]
        x, _ = self.second(self.between(x))
        return self.scores(x)


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
