"""Clips of real digits that do two things, one after the other, and what one would say about them:
"a three moves left then grows".

They are made as the pictures of :mod:`pydl.data.scenes` are, held-out ones of held-out digits
alone. Where a digit is, how large and how far turned **in the middle frame** is drawn by itself, so
that this frame says nothing of what the digit does: that is in the frames around it.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pydl.data import collage
from pydl.data.scenes import LICENCE, SOURCE
from pydl.data.sentences import noun

__all__ = ["ACTS", "LICENCE", "SOURCE", "Episodes", "episodes"]

# What each changes: x, y downwards, height, angle counter-clockwise.
_CHANGES = {
    "moves left": (-1, 0, 0, 0),
    "moves right": (1, 0, 0, 0),
    "moves up": (0, -1, 0, 0),
    "moves down": (0, 1, 0, 0),
    "grows": (0, 0, 1, 0),
    "shrinks": (0, 0, -1, 0),
    "turns left": (0, 0, 0, 1),
    "turns right": (0, 0, 0, -1),
}
ACTS = tuple(_CHANGES)
_DIRECTIONS = np.array(list(_CHANGES.values()))
_SLOWEST, _FASTEST = 0.05, 0.08  # of the room that there is, from one frame to the next


@dataclass(frozen=True)
class Episodes:
    """N clips of T pictures, of one digit each that does two different things."""

    frames: torch.Tensor  # [N, 1, T, H, W] in 0 ... 1
    masks: torch.Tensor  # [N, T, H, W], bool
    acts: torch.Tensor  # [N, T], int64: numbers in ACTS of what leads to each frame
    labels: torch.Tensor  # [N], int64
    digits: torch.Tensor  # [N], int64: which of the 1,797
    sentences: tuple[str, ...]  # "a three moves left then grows", ...


def episodes(
    count: int,
    frames: int = 10,
    size: int | tuple[int, int] = 40,
    *,
    seed: int = 0,
    held_out: bool = False,
    scale: tuple[float, float] = (0.25, 0.45),
    angle: float = 60.0,
    clutter: int = 2,
) -> Episodes:
    """So many clips, in which the second act begins between two fifths and three fifths of the
    time; for the arguments see :func:`pydl.data.scenes.scenes`.

    Raises:
        ValueError: there are fewer than 5 frames, or so many that a digit has no room to go on in
            the same direction.
        MissingExtraError: scikit-learn is not installed.
    """
    height, width = collage.sides(size)
    middle = frames // 2
    far = _FASTEST * middle  # from its place in the middle frame
    if frames < 5 or far >= 0.5:
        most = 2 * int(0.5 / _FASTEST) + 1
        raise ValueError(f"expected 5 to {most} frames, got {frames}")
    edge = collage.REACH * scale[1] * min(height, width)
    low = np.array([edge, edge, scale[0] * min(height, width), -angle])
    high = np.array([width - edge, height - edge, scale[1] * min(height, width), angle])
    pictures, masks, acts, chosen = [], [], [], []
    for number in range(count):
        draw = collage.drawing(3, seed, held_out, number)
        one = collage.choose(draw, held_out, 1)
        both = draw.choice(len(ACTS), 2, replace=False)
        turn = draw.integers(2 * frames // 5, 3 * frames // 5 + 1)
        second = (np.arange(frames) >= turn).astype(int)  # [T]
        act, speed = both[second], draw.uniform(_SLOWEST, _FASTEST, 2)[second]
        path = (_DIRECTIONS[act] * speed[:, None]).cumsum(0)  # [T, 4]
        path += draw.uniform(far, 1 - far, 4) - path[middle]
        filmed = collage.filmed(
            draw, one, low + path * (high - low), held_out, height, width, clutter
        )
        pictures.append(filmed[0])
        masks.append(filmed[1])
        acts.append(act)
        chosen.append(one)
    which = np.concatenate(chosen)
    labels = collage.labels(which)
    said = zip(labels.tolist(), acts, strict=True)
    return Episodes(
        frames=torch.stack(pictures).unsqueeze(1),
        masks=torch.stack(masks),
        acts=torch.from_numpy(np.stack(acts)),
        labels=labels,
        digits=torch.from_numpy(which),
        sentences=tuple(
            f"{noun(label)} {ACTS[act[0]]} then {ACTS[act[-1]]}" for label, act in said
        ),
    )
