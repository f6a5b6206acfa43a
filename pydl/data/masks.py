"""A folder of images, and beside each a mask that says what every pixel is."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pydl.data import folder as images_in
from pydl.data.extras import require
from pydl.data.files import contents
from pydl.data.split import Split, standardised

if TYPE_CHECKING:
    from PIL.Image import Image

VOID = 255  # a pixel that is nobody's, such as the outlines in VOC's masks
IGNORED = -100  # what becomes of it: PyTorch's losses leave out targets of this number

Colour = tuple[int, int, int]

# Names of the two folders: plain ones, and those of Pascal VOC.
_FOLDERS = (("images", "masks"), ("JPEGImages", "SegmentationClass"))


@dataclass(frozen=True)
class Segmented:
    """Images with the class of each pixel.

    The labels of ``split`` are maps (N, H, W), int64: numbers of classes, and :data:`IGNORED`.
    """

    split: Split
    colours: tuple[Colour, ...]  # a class, red, green and blue of 0 ... 255
    held_out: tuple[str, ...]  # the names of the held-out images, without what they end in


def load(
    folder: Path,
    seed: int = 0,
    *,
    size: int | None = None,
    channels: int = 3,
    source: str = "your own files",
    licence: str = "not stated",
) -> Segmented:
    """Every image of ``folder/images`` with the mask of the same name in ``folder/masks`` (or in
    Pascal VOC's folders, ``JPEGImages`` and ``SegmentationClass``).

    A mask is a file of one channel, best a PNG with a palette, whose numbers are those of classes;
    255 is a pixel that does not count. Masks that are black and white, 0 and 255 alone in all of
    them, have two classes. ``folder/classes.txt`` may have the classes' names, one a line; they are
    numbered otherwise, as many as occur. A palette's colours are the classes'.

    Args:
        folder: holds the two folders. What begins with a dot is left out.
        seed: of the split: a fifth of the images is held out.
        size: scale the shorter side to so many pixels and take the square in the middle; without
            it all images must be of one size.
        channels: of the images: 3 for red, green and blue, 1 for grey.
        source: of the images.
        licence: of the images.

    Raises:
        FileNotFoundError: a folder is missing, or empty, or an image's mask is.
        ValueError: a mask is not what it should be, or its size is not its image's; there are fewer
            than two images, or they differ in size.
        CorruptFileError: an image or a mask cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    require("PIL")
    pairs = _pairs(folder)
    found = [_read(image, mask, channels, size) for image, mask in pairs]
    first = found[0][0].shape
    for (image, _), (pixels, _) in zip(pairs, found, strict=True):
        if pixels.shape != first:
            raise ValueError(
                f"expected {image} to have the size of {pairs[0][0]}, {first[1]}x{first[2]}, got "
                f"{pixels.shape[1]}x{pixels.shape[2]}; size=... scales them"
            )
    images = torch.stack([pixels for pixels, _ in found])
    maps = torch.stack([torch.from_numpy(np.array(mask, np.int64)) for _, mask in found])
    black_and_white = bool(((maps == 0) | (maps == VOID)).all()) and all(
        mask.mode == "L" for _, mask in found
    )
    maps[maps == VOID] = 1 if black_and_white else IGNORED
    classes = _names(folder / "classes.txt", int(maps.max()) + 1)
    for (_, file), one in zip(pairs, maps, strict=True):
        if one.max() >= len(classes):
            raise ValueError(
                f"expected numbers below {len(classes)}, the classes of classes.txt, or {VOID} in "
                f"{file}, got {int(one.max())}"
            )
    order = np.random.default_rng(seed).permutation(len(pairs))
    held_out = np.sort(order[: max(1, round(len(order) / 5))])
    train = np.sort(order[len(held_out) :])
    split = standardised(
        (images[train], maps[train]),
        (images[held_out], maps[held_out]),
        classes=classes,
        source=source,
        licence=licence,
    )
    names = tuple(pairs[i][0].stem for i in held_out)
    return Segmented(split, _colours(found[0][1], len(classes)), names)


def write(file: Path, map: torch.Tensor, colours: tuple[Colour, ...]) -> None:
    """Writes a mask as a PNG with a palette, which is there whole afterwards or not at all.

    Args:
        file: ends in ``.png``.
        map: (H, W), numbers of classes; negative ones become :data:`VOID`.
        colours: of the classes.
    """
    require("PIL")
    import PIL.Image

    numbers = map.where(map >= 0, torch.tensor(VOID)).to(torch.uint8)
    picture = PIL.Image.fromarray(numbers.numpy())
    # All 256, or Pillow would find few bits enough for a pixel, and 255 be cut.
    every = (*colours, *palette(256)[len(colours) :])
    picture.putpalette([part for colour in every for part in colour])
    partial = file.with_name(f"{file.name}.partial")
    picture.save(partial, "PNG")
    partial.replace(file)


def palette(classes: int) -> tuple[Colour, ...]:
    """Pascal VOC's colours: the bits of a class's number, dealt out to red, green and blue."""

    def part(number: int, channel: int) -> int:
        return sum((number >> (3 * i + channel) & 1) << (7 - i) for i in range(8))

    return tuple((part(n, 0), part(n, 1), part(n, 2)) for n in range(classes))


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Each image with its mask, by name."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder, {folder} is none")
    for images, masks in _FOLDERS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            break
    else:
        known = " or ".join(f"{images} and {masks}" for images, masks in _FOLDERS)
        raise FileNotFoundError(f"expected folders {known} in {folder}")
    by_name: dict[str, dict[str, Path]] = {}
    for part in (images, masks):
        by_name[part] = {
            file.stem: file
            for file in sorted((folder / part).iterdir())
            if file.suffix.lower() in images_in.SUFFIXES and not file.name.startswith(".")
        }
    # Pascal VOC has masks for some of its images.
    wanted = by_name[images] if images == "images" else by_name[masks]
    for name in wanted:
        for part in (images, masks):
            if name not in by_name[part]:
                raise FileNotFoundError(f"expected an image file {name}.* in {folder / part}")
    if len(wanted) < 2:
        raise ValueError(
            f"expected at least two images in {folder / images}, one of them to hold out, got "
            f"{len(wanted)}"
        )
    return [(by_name[images][name], by_name[masks][name]) for name in wanted]


def _read(image: Path, mask: Path, channels: int, size: int | None) -> tuple[torch.Tensor, "Image"]:
    """Pixels [channels, H, W], uint8, and the mask, of the same size."""
    import PIL.Image

    picture, numbers = images_in.opened(image), images_in.opened(mask)
    if numbers.mode == "1":
        numbers = numbers.convert("L")
    if numbers.mode not in ("P", "L"):
        raise ValueError(
            f"expected numbers of classes in {mask}, in one channel of 8 bits, got Pillow's "
            f"{numbers.mode}"
        )
    if picture.size != numbers.size:
        raise ValueError(
            f"expected {mask} to have the size of {image}, "
            f"{picture.height}x{picture.width}, got {numbers.height}x{numbers.width}"
        )
    if size is not None:
        numbers = images_in.scaled(numbers, size, True, PIL.Image.Resampling.NEAREST)
    return images_in.pixels(picture, image, channels, size), numbers


def _names(file: Path, count: int) -> tuple[str, ...]:
    if not file.is_file():
        return tuple(f"class {number}" for number in range(max(count, 2)))
    lines = contents(file).decode("utf-8", "replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def _colours(mask: "Image", count: int) -> tuple[Colour, ...]:
    """A mask's own where it has that many."""
    own = mask.getpalette("RGB") if mask.mode == "P" else None
    if own is None or len(own) < 3 * count:
        return palette(count)
    return tuple((own[3 * n], own[3 * n + 1], own[3 * n + 2]) for n in range(count))
