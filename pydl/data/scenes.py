"""Pictures made of real digits, with the whole truth about them: what is where, how it is turned,
how it moves, what one would say about it.

Digits of :mod:`pydl.data.digits` are laid at random places, sizes and angles on a dim ground strewn
with scraps of digits. **Held-out pictures are made of held-out digits alone**, scraps included, and
always of the same split, whatever the seed. A picture depends on the seed and its own number, not
on how many there are; its greys are those of 8 bits.

Angles are in degrees, counter-clockwise as seen.
"""

from dataclasses import dataclass

import numpy as np
import torch

from pydl.data import collage
from pydl.data.digits import LICENCE, SOURCE
from pydl.data.sentences import noun, reading_order, region, sentence

__all__ = [
    "LICENCE",
    "MOTIONS",
    "SOURCE",
    "Clips",
    "Distorted",
    "Scene",
    "clips",
    "distorted",
    "scenes",
    "upright",
]

MOTIONS = ("moving", "turning", "growing")


@dataclass(frozen=True)
class Scene:
    """A picture of k digits, in the order in which one reads: line by line, from left to right."""

    image: torch.Tensor  # [1, H, W] in 0 ... 1
    map: torch.Tensor  # [H, W], int64: 0 for the ground, 1 + digit elsewhere
    boxes: torch.Tensor  # [k, 4]: left, top, right, bottom in pixels, the last two past the digit
    masks: torch.Tensor  # [k, H, W], bool; no pixel belongs to two
    labels: torch.Tensor  # [k], int64: 0 ... 9
    angles: torch.Tensor  # [k]
    digits: torch.Tensor  # [k], int64: which of the 1,797
    string: str  # "37"
    sentence: str  # "a three left of a seven"
    regions: tuple[str, ...]  # "a small three at the top left", ...


@dataclass(frozen=True)
class Distorted:
    """N pictures of one digit each. ``grid_sample(images, affine_grid(theta, ...))`` sets it
    upright in the middle, at four fifths of the picture's height."""

    images: torch.Tensor  # [N, 1, H, W] in 0 ... 1
    labels: torch.Tensor  # [N], int64
    theta: torch.Tensor  # [N, 2, 3]
    angles: torch.Tensor  # [N]
    digits: torch.Tensor  # [N], int64: which of the 1,797


@dataclass(frozen=True)
class Clips:
    """N clips of T pictures, of one digit each that moves, or turns, or grows (or shrinks)."""

    frames: torch.Tensor  # [N, 1, T, H, W] in 0 ... 1
    masks: torch.Tensor  # [N, T, H, W], bool
    motions: torch.Tensor  # [N], int64: numbers in MOTIONS
    labels: torch.Tensor  # [N], int64
    digits: torch.Tensor  # [N], int64: which of the 1,797
    sentences: tuple[str, ...]  # "a three turning", ...


def scenes(
    count: int,
    size: int | tuple[int, int] = 96,
    *,
    seed: int = 0,
    held_out: bool = False,
    digits: tuple[int, int] = (1, 4),
    scale: tuple[float, float] = (0.2, 0.4),
    angle: float = 20.0,
    clutter: int = 8,
) -> list[Scene]:
    """Pictures of several digits whose boxes do not overlap.

    A line to be read is ``scenes(n, (32, 128), digits=(3, 6), scale=(0.6, 0.9), angle=8)``.

    Args:
        count: of the pictures.
        size: height and width in pixels.
        seed: of everything drawn at random.
        held_out: take the held-out digits, otherwise the others.
        digits: fewest and most in a picture.
        scale: least and greatest height of an upright digit, as a part of the picture's shorter
            side; they are made smaller where they find no room otherwise.
        angle: by which a digit is turned at most.
        clutter: scraps in a picture.

    Raises:
        ValueError: so many digits find no room, even at 6 pixels each.
        MissingExtraError: scikit-learn is not installed.
    """
    height, width = collage.sides(size)
    if not 0 < digits[0] <= digits[1]:
        raise ValueError(f"expected digits to be fewest and most, at least 1, got {digits}")
    made = []
    for number in range(count):
        draw = collage.drawing(0, seed, held_out, number)
        chosen = collage.choose(draw, held_out, int(draw.integers(digits[0], digits[1] + 1)))
        poses = collage.placed(draw, chosen, height, width, scale, angle)
        ink = collage.laid(collage.upright(chosen), poses, height, width)  # [k, H, W]
        ground = collage.ground(draw, held_out, height, width, clutter)
        image = collage.over(ground, ink, draw.uniform(0.7, 1, len(ink)))
        masks = ink > collage.SEEN
        boxes = collage.bounds(masks)
        order = reading_order(boxes.tolist())
        made.append(_described(image, masks[order], boxes[order], poses[order, 3], chosen[order]))
    return made


def _described(
    image: torch.Tensor,
    masks: torch.Tensor,
    boxes: torch.Tensor,
    angles: np.ndarray,
    chosen: np.ndarray,
) -> Scene:
    labels = collage.labels(chosen)
    known, listed = labels.tolist(), boxes.tolist()
    return Scene(
        image=collage.eight_bits(image).unsqueeze(0),
        map=(masks * (labels + 1).view(-1, 1, 1)).sum(0),
        boxes=boxes,
        masks=masks,
        labels=labels,
        angles=torch.from_numpy(angles).float(),
        digits=torch.from_numpy(chosen),
        string="".join(map(str, known)),
        sentence=sentence(known, listed),
        regions=tuple(
            region(label, box, *image.shape) for label, box in zip(known, listed, strict=True)
        ),
    )


def distorted(
    count: int,
    size: int | tuple[int, int] = 32,
    *,
    seed: int = 0,
    held_out: bool = False,
    scale: tuple[float, float] = (0.4, 0.7),
    angle: float = 45.0,
    clutter: int = 0,
) -> Distorted:
    """Single digits moved, scaled and turned; for the arguments see :func:`scenes`."""
    height, width = collage.sides(size)
    images, chosen, poses = [], [], []
    for number in range(count):
        draw = collage.drawing(1, seed, held_out, number)
        chosen.append(collage.choose(draw, held_out, 1))
        poses.append(collage.placed(draw, chosen[-1], height, width, scale, angle))
        ink = collage.laid(collage.upright(chosen[-1]), poses[-1], height, width)
        ground = collage.ground(draw, held_out, height, width, clutter)
        images.append(collage.eight_bits(collage.over(ground, ink, np.ones(1))))
    which, pose = np.concatenate(chosen), np.concatenate(poses)
    return Distorted(
        images=torch.stack(images).unsqueeze(1),
        labels=collage.labels(which),
        theta=collage.affine(pose, height, width)[1],
        angles=torch.from_numpy(pose[:, 3]).float(),
        digits=torch.from_numpy(which),
    )


def clips(
    count: int,
    frames: int = 8,
    size: int | tuple[int, int] = 32,
    *,
    seed: int = 0,
    held_out: bool = False,
    scale: tuple[float, float] = (0.3, 0.55),
    angle: float = 40.0,
    clutter: int = 2,
) -> Clips:
    """Digits that do one of three things, and turn back at the picture's edge, at an end of the
    scale or at the greatest angle; for the arguments see :func:`scenes`.

    Place, size and angle are spread alike in all three and at all times, so that a single frame
    says nothing of the motion.
    """
    height, width = collage.sides(size)
    if not scale[1] < 1 / (2 * collage.REACH):
        raise ValueError(
            f"expected a scale below {1 / (2 * collage.REACH):.2f} to move in, got {scale}"
        )
    time = np.arange(frames)[:, None]
    pictures, masks, motions, chosen = [], [], [], []
    for number in range(count):
        draw = collage.drawing(2, seed, held_out, number)
        one = collage.choose(draw, held_out, 1)
        motion = int(draw.integers(len(MOTIONS)))
        changes = np.array([motion == 0, motion == 0, motion == 2, motion == 1])  # x, y, size, turn
        phase = draw.uniform(0, 2, 4) + time * draw.uniform(0.08, 0.16, 4) * changes
        x, y, large, turned = np.abs(phase % 2 - 1).T  # [T] each, in 0 ... 1, to and fro
        high = (scale[0] + large * (scale[1] - scale[0])) * min(height, width)
        edge = collage.REACH * high
        x, y = edge + x * (width - 2 * edge), edge + y * (height - 2 * edge)
        poses = np.stack([x, y, high, angle * (2 * turned - 1)], axis=1)
        picture, mask = collage.filmed(draw, one, poses, held_out, height, width, clutter)
        pictures.append(picture)
        masks.append(mask)
        motions.append(motion)
        chosen.append(one)
    which = np.concatenate(chosen)
    labels = collage.labels(which)
    said = zip(labels.tolist(), motions, strict=True)
    return Clips(
        frames=torch.stack(pictures).unsqueeze(1),
        masks=torch.stack(masks),
        motions=torch.tensor(motions),
        labels=labels,
        digits=torch.from_numpy(which),
        sentences=tuple(f"{noun(label)} {MOTIONS[motion]}" for label, motion in said),
    )


def upright(which: torch.Tensor) -> torch.Tensor:
    """The digits with these numbers (N) as they are before they are laid: (N, 1, 32, 32)."""
    return collage.upright(which.numpy())
