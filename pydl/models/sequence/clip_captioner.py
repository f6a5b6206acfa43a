"""A sentence about a clip: Yao, Torabi, Cho, Ballas, Pal, Larochelle, Courville, "Describing Videos
by Exploiting Temporal Structure", 2015, with its attention over time.

For each word a decoder reads the frames that it needs. What moves is in no frame by itself: where
the paper has 3-D convolutions for that, here :class:`Frames` of LRCN reads a frame in the light of
the others.
"""

from typing import Any

import torch

from pydl.models.model import Model
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.decoder import State
from pydl.models.sequence.writer import Writer
from pydl.models.video.lrcn import Frames, frames_of_digits


class ClipCaptioner(Writer):
    """Writes symbols about clips.

    Args:
        frames: what reads them.
        symbols: how many there are, the decoder's own among them.
        options: of :class:`Writer`.
    """

    def __init__(self, frames: Frames, symbols: int, **options: Any) -> None:
        super().__init__(frames.size, frames.size, symbols, **options)
        self.frames = frames

    def read(self, clips: torch.Tensor) -> tuple[State, Memory]:
        """What the decoder starts from: the mean of the states, and those of the T frames of clips
        (B, C, T, H, W)."""
        values = self.frames(clips).transpose(0, 1).contiguous()  # [B, T, size]
        return self.begin(values.mean(1), values)


def clip_captioner(symbols: int = 26) -> ClipCaptioner:
    """For clips of digits, and sentences of what they do."""
    return ClipCaptioner(frames_of_digits(), symbols)


MODELS = (
    Model(
        "clip_captioner",
        clip_captioner,
        (1, 10, 40, 40),
        "a sentence on a clip, with attention over its frames",
        "Yao, Torabi, Cho, Ballas, Pal, Larochelle, Courville 2015, Describing Videos by "
        "Exploiting Temporal Structure",
        task="captioning",
        tokens=26,
        small=(1, 3, 40, 40),
        target=(3,),
        parameters=292_882,
    ),
)
