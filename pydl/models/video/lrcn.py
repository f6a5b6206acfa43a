"""LRCN: Donahue, Hendricks, Guadarrama, Rohrbach, Venugopalan, Saenko, Darrell, "Long-term
Recurrent Convolutional Networks for Visual Recognition and Description", 2015.

Convolutions look at each frame by itself, an LSTM reads what they saw frame after frame, and each
of its states says what goes on in its frame: many to many, as the lectures call it.
"""

import torch

from pydl import nn
from pydl.models.model import Model
from pydl.models.stages import stages

MAPS = (8, 16, 32, 32)  # of the small convolutions for digits


class Frames(nn.Module):
    """What is in each frame of a clip, in the light of the others.

    Args:
        features: from images to maps.
        numbers: how many the maps of an image have together.
        units: of the fully connected layer behind them.
        hidden: size of the LSTM's state in each direction.
        bidirectional: whether it reads the frames that come, too. The paper's does not.
    """

    def __init__(
        self,
        features: nn.Module,
        numbers: int,
        *,
        units: int = 64,
        hidden: int = 64,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.linear, self.relu = nn.Linear(numbers, units), nn.ReLU()
        self.recurrent = nn.LSTM(units, hidden, bidirectional=bidirectional)
        self.size = hidden * (1 + bidirectional)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(T, B, size) states from clips (B, C, T, H, W)."""
        images = clips.permute(2, 0, 1, 3, 4)  # [T, B, C, H, W]
        maps = self.features(images.flatten(0, 1))
        x = self.relu(self.linear(maps.flatten(1)))  # [T B, units]
        states, _ = self.recurrent(x.view(*images.shape[:2], -1))
        return states


class LRCN(nn.Module):
    """Scores of each frame's classes; their mean over time are the paper's of the whole clip.

    Args:
        frames: what reads them.
        classes: how many there are.
        dropout: of the states.
    """

    def __init__(self, frames: Frames, classes: int, *, dropout: float = 0.2) -> None:
        super().__init__()
        self.frames = frames
        self.dropout = nn.Dropout(dropout)
        self.scores = nn.Linear(frames.size, classes)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """(B, classes, T) from clips (B, C, T, H, W)."""
        return self.scores(self.dropout(self.frames(clips))).permute(1, 2, 0)


def frames_of_digits() -> Frames:
    """For grey frames of 40x40, in both directions: where something moves to shows in the frames
    that come."""
    return Frames(stages(1, MAPS), MAPS[-1] * 5**2, bidirectional=True)


def lrcn_digits() -> LRCN:
    """For clips of digits that do one of eight things at a time."""
    return LRCN(frames_of_digits(), 8)


MODELS = (
    Model(
        "lrcn-digits",
        lrcn_digits,
        (1, 10, 40, 40),
        "small convolutions on each frame and a bidirectional LSTM: what goes on in each",
        "Donahue, Hendricks, Guadarrama, Rohrbach, Venugopalan, Saenko, Darrell 2015, Long-term "
        "Recurrent Convolutional Networks for Visual Recognition and Description",
        task="clips",
        small=(1, 3, 40, 40),
        parameters=134_080,
    ),
)
