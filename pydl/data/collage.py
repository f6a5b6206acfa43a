"""How the pictures of :mod:`pydl.data.scenes` are laid out of digits.

A pose is four numbers: x and y of a digit's centre and its height in pixels when upright, and the
angle by which it is turned, in degrees counter-clockwise as seen.
"""

import functools
import math

import numpy as np
import torch
from torch.nn.functional import grid_sample, interpolate, pad

from pydl.data import digits

SIDE = 32  # pixels of an upright digit's picture
SEEN = 0.4  # of full ink belongs to the digit
# Of its height, what a digit reaches from its centre however it is turned, nearly: the corners of
# the 8x8 cells are further away, but they are empty.
REACH = 0.6

# A picture's height to that of the digit in it: one cell around the 8x8, for strokes that end there
# were cut off.
_FRAME = 10 / 8
_SMALLEST = 6.0  # pixels of a digit's height
_SCRAP = 12  # pixels of an upright digit's picture: width of a scrap
_TRIES = 30  # at a place for a digit


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of pictures of this size."""
    return (size, size) if isinstance(size, int) else size


def drawing(kind: int, seed: int, held_out: bool, number: int) -> np.random.Generator:
    """What one picture or clip of a kind is drawn with, whatever others are made."""
    return np.random.default_rng((seed, kind, held_out, number))


def upright(which: np.ndarray) -> torch.Tensor:
    """The digits with these numbers as they are before they are laid, [k, 1, 32, 32] in 0 ... 1."""
    return _digits()[0][torch.from_numpy(which)]


def labels(which: np.ndarray) -> torch.Tensor:
    """What they are, 0 ... 9."""
    return _digits()[1][torch.from_numpy(which)]


def choose(draw: np.random.Generator, held_out: bool, count: int) -> np.ndarray:
    """Numbers of digits, all from one side of the split."""
    return draw.choice(_digits()[2][held_out], count)


@functools.cache
def _digits() -> tuple[torch.Tensor, torch.Tensor, dict[bool, np.ndarray]]:
    """Pictures, labels, and the numbers of those to learn from (False) and of the held-out (True),
    always of one split."""
    read = digits.read(seed=0)
    ink = interpolate(pad(read.ink, [1] * 4), (SIDE, SIDE), mode="bicubic", align_corners=False)
    return ink.clamp_(0, 1), read.labels, {False: read.train.numpy(), True: read.held_out.numpy()}


def placed(
    draw: np.random.Generator,
    chosen: np.ndarray,
    height: int,
    width: int,
    scale: tuple[float, float],
    angle: float,
) -> np.ndarray:
    """Poses [k, 4] in which the digits lie apart, within the picture.

    Raises:
        ValueError: there is no room for them.
    """
    side = min(height, width)
    shrunk = 1.0
    while shrunk * scale[1] * side >= _SMALLEST:
        poses: list[tuple[float, float, float, float]] = []
        boxes = np.empty((0, 4))
        for which in chosen:
            high = max(_SMALLEST, shrunk * draw.uniform(*scale) * side)
            turn = draw.uniform(-angle, angle)
            left, top, right, bottom = _extent(int(which), high, turn)
            room_x, room_y = width - right + left, height - bottom + top
            for _ in range(_TRIES if min(room_x, room_y) >= 0 else 0):
                x, y = draw.random() * room_x - left, draw.random() * room_y - top
                box = np.array([x + left, y + top, x + right, y + bottom])
                apart = (box[:2] >= boxes[:, 2:]) | (box[2:] <= boxes[:, :2])
                if apart.any(axis=1).all():
                    poses.append((x, y, high, turn))
                    boxes = np.vstack([boxes, box])
                    break
            else:
                break
        if len(poses) == len(chosen):
            return np.array(poses)
        shrunk *= 0.9
    raise ValueError(
        f"{len(chosen)} digits at least {_SMALLEST:.0f} pixels high find no room in "
        f"{height}x{width} at a scale of {scale[0]} to {scale[1]}"
    )


def _extent(which: int, high: float, turn: float) -> tuple[float, float, float, float]:
    """How far a digit's ink reaches from its centre, and a pixel further."""
    rows, columns = np.nonzero(_digits()[0][which, 0].numpy() > SEEN / 2)
    x, y = (((2 * place + 1) / SIDE - 1) * _FRAME * high / 2 for place in (columns, rows))
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    across, down = x * cos + y * sin, y * cos - x * sin
    return across.min() - 1, down.min() - 1, across.max() + 1, down.max() + 1


def affine(
    poses: np.ndarray, height: int, width: int, part: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps [k, 2, 3]: from places in the picture to those in an upright digit's, and back.

    Places reach from -1 to 1, as ``affine_grid`` has them. Of the upright digit's picture there may
    be a ``part`` alone; the pose is then that of the part's centre.
    """
    x, y, high, turn = poses.T
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    x, y = 2 * x / width - 1, 2 * y / height - 1
    w, h = width / (_FRAME * part * high), height / (_FRAME * part * high)
    into = (
        (w * cos, -h * sin, h * sin * y - w * cos * x),
        (w * sin, h * cos, -w * sin * x - h * cos * y),
    )
    back = ((cos / w, sin / w, x), (-sin / h, cos / h, y))
    first, second = (torch.from_numpy(np.array(rows)).float() for rows in (into, back))
    return first.permute(2, 0, 1), second.permute(2, 0, 1)


def laid(pictures: torch.Tensor, poses: np.ndarray, height: int, width: int) -> torch.Tensor:
    """The ink [k, H, W] of upright digits [k, 1, 32, 32], or of square parts, in their poses."""
    # Only a window around each is sampled, wide enough for the largest.
    part = pictures.shape[2] / SIDE
    half = math.ceil(poses[:, 2].max() * _FRAME * part / math.sqrt(2)) + 1
    corners = np.floor(poses[:, :2]).astype(int) - half
    inside = poses.copy()
    inside[:, :2] -= corners
    into, _ = affine(inside, 2 * half, 2 * half, part)
    # As affine_grid does it, at a tenth of its time.
    place = (2 * torch.arange(2 * half) + 1) / (2 * half) - 1
    across = place.view(1, 1, -1, 1) * into[:, None, None, :, 0]  # [k, 1, W, 2]
    down = place.view(1, -1, 1, 1) * into[:, None, None, :, 1] + into[:, None, None, :, 2]
    windows = grid_sample(pictures, across + down, align_corners=False)[:, 0]
    ink = torch.zeros(len(poses), height, width)
    for i, (x, y) in enumerate(corners.tolist()):
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + 2 * half, width), min(y + 2 * half, height)
        ink[i, top:bottom, left:right] = windows[i, top - y : bottom - y, left - x : right - x]
    return ink


def over(ground: torch.Tensor, ink: torch.Tensor, shades: np.ndarray) -> torch.Tensor:
    """Ink [k, H, W] on a ground [H, W]; where faint edges meet, neither darkens the other."""
    bright = ink * torch.from_numpy(shades).float().view(-1, 1, 1)
    return ground * (1 - ink.amax(0)) + bright.amax(0)


def ground(
    draw: np.random.Generator, held_out: bool, height: int, width: int, clutter: int
) -> torch.Tensor:
    """Dim clouds [H, W] with a grain, and round scraps of digits, some as bright as digits."""
    clouds = torch.from_numpy(draw.uniform(0, 0.4, (1, 1, 5, 5))).float()
    clouds = interpolate(clouds, (height, width), mode="bicubic", align_corners=False)[0, 0]
    grain = torch.from_numpy(draw.normal(0, 0.03, (height, width))).float()
    if not clutter:
        return clouds + grain
    high = draw.uniform(0.2, 0.4, clutter) * min(height, width)
    x, y = draw.uniform(0, width, clutter), draw.uniform(0, height, clutter)
    poses = np.stack([x, y, high, draw.uniform(-180, 180, clutter)], axis=1)
    # A round window in each digit.
    side = torch.arange(_SCRAP)
    middle = (_SCRAP - 1) / 2
    window = (_SCRAP / 2 - torch.hypot(side[:, None] - middle, side - middle)).clamp(0, 1)
    rows, columns = torch.from_numpy(draw.integers(0, SIDE - _SCRAP + 1, (2, clutter, 1)))
    whole = upright(choose(draw, held_out, clutter))
    which = torch.arange(clutter).view(-1, 1, 1)
    scraps = whole[which, 0, (rows + side)[:, :, None], (columns + side)[:, None]] * window
    ink = laid(scraps.unsqueeze(1), poses, height, width)
    return over(clouds + grain, ink, draw.uniform(0.4, 0.9, clutter))


def filmed(
    draw: np.random.Generator,
    chosen: np.ndarray,
    poses: np.ndarray,
    held_out: bool,
    height: int,
    width: int,
    clutter: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The T pictures [T, H, W] of one digit in so many poses, on a ground that stands still, and
    the masks [T, H, W] of the digit."""
    ink = laid(upright(chosen.repeat(len(poses))), poses, height, width)  # [T, H, W]
    behind = ground(draw, held_out, height, width, clutter)
    return eight_bits(behind * (1 - ink) + ink), ink > SEEN


def eight_bits(image: torch.Tensor) -> torch.Tensor:
    """The nearest of 256 greys."""
    return image.clamp(0, 1).mul(255).round().div(255)


def bounds(masks: torch.Tensor) -> torch.Tensor:
    """The boxes [k, 4] of masks [k, H, W]: left, top, right, bottom, the last two past the mask."""
    boxes = []
    for mask in masks:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        boxes.append([int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1])
    return torch.tensor(boxes, dtype=torch.float32)
