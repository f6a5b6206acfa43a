"""Who speaks: Wan, Wang, Papir, Lopez Moreno, "Generalized End-to-End Loss for Speaker
Verification", 2018, in the size of Jia et al. 2018, "Transfer Learning from Speaker Verification to
Multispeaker Text-To-Speech Synthesis", that Resemblyzer has trained."""

import torch

from pydl import nn
from pydl.models.model import Model


class SpeakerEncoder(nn.Module):
    """A vector of the length 1 for a piece of speech; those of one speaker lie close together.

    Args:
        channels: of the mel spectrogram.
        hidden: size of the three LSTMs' states.
        size: of the vector.
    """

    def __init__(self, channels: int = 40, *, hidden: int = 256, size: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, 3, batch_first=True)
        self.linear, self.relu = nn.Linear(hidden, size), nn.ReLU()

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """(B, size) from (B, T, channels)."""
        _, (states, _) = self.lstm(mel)
        return nn.functional.normalize(self.relu(self.linear(states[-1])))


def speaker_encoder() -> SpeakerEncoder:
    """As Resemblyzer has trained it: 1.6 seconds of speech, a hundred frames a second."""
    return SpeakerEncoder()


MODELS = (
    Model(
        "speaker_encoder",
        speaker_encoder,
        (160, 40),
        "who speaks, by three LSTMs",
        "Wan, Wang, Papir, Lopez Moreno 2018, Generalized End-to-End Loss for Speaker Verification",
        task="speakers",
        small=(12, 40),
        parameters=1_423_616,
    ),
)
