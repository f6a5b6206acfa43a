"""A folder of images, a class a subfolder."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pydl.data.extras import require
from pydl.data.files import CorruptFileError
from pydl.data.split import Split, standardised

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

# Files that end otherwise are left alone.
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

_MODES = {1: "L", 3: "RGB"}


def load(
    folder: Path,
    seed: int = 0,
    *,
    held_out: Path | None = None,
    size: int | None = None,
    crop: bool = True,
    channels: int = 3,
    source: str = "your own files",
    licence: str = "not stated",
) -> Split:
    """Every image of a folder, in the order of the files' names.

    Args:
        folder: each of its subfolders holds the images of the class that it is named after,
            directly or in further folders. What begins with a dot is left out.
        seed: of the split: a fifth of each class is held out.
        held_out: another folder with the same classes, in place of that split.
        size: scale the shorter side to so many pixels and take the square in the middle; without
            it all images must be of one size.
        crop: with False scale the whole image to the square, wider or narrower than it was.
        channels: 3 for red, green and blue, 1 for grey.
        source: of the images.
        licence: of the images.

    Raises:
        FileNotFoundError: there is no subfolder, or one without images.
        ValueError: images differ in size, the folders in classes, or a class is a single image.
        CorruptFileError: an image cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    require("PIL")
    if channels not in _MODES:
        raise ValueError(f"expected channels to be 1 or 3, got {channels}")
    train = _files(folder)
    classes = tuple(train)
    if held_out is not None:
        others = _files(held_out)
        if tuple(others) != classes:
            raise ValueError(
                f"expected the classes of {folder}, {', '.join(classes)}, in {held_out}, "
                f"got {', '.join(others)}"
            )
    else:
        train, others = _parted(train, seed)
    first = next(iter(train.values()))[0]
    shape = _read(first, channels, size, crop).shape
    pairs = []
    for part in (train, others):
        images, labels = [], []
        for label, files in enumerate(part.values()):
            for file in files:
                image = _read(file, channels, size, crop)
                if image.shape != shape:
                    raise ValueError(
                        f"expected {file} to have the size of {first}, {shape[1]}x{shape[2]}, "
                        f"got {image.shape[1]}x{image.shape[2]}; size=... scales them"
                    )
                images.append(image)
                labels.append(label)
        pairs.append((torch.stack(images), torch.tensor(labels)))
    return standardised(*pairs, classes=classes, source=source, licence=licence)


def _files(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class, all sorted by name."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder, {folder} is none")
    found: dict[str, list[Path]] = {}
    for kind in sorted(folder.iterdir()):
        if not kind.is_dir() or kind.name.startswith("."):
            continue
        found[kind.name] = [
            file
            for file in sorted(kind.rglob("*"))
            if file.suffix.lower() in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(kind).parts)
        ]
        if not found[kind.name]:
            raise FileNotFoundError(
                f"expected images ({', '.join(SUFFIXES)}) in {kind}, found none"
            )
    if not found:
        raise FileNotFoundError(f"expected a subfolder for each class in {folder}, found none")
    return found


def _parted(
    files: dict[str, list[Path]], seed: int
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """A fifth of each class, at least one image, goes to the second."""
    train, held_out = {}, {}
    for number, (name, all_of_it) in enumerate(files.items()):
        if len(all_of_it) < 2:
            raise ValueError(
                f"expected at least two images of {name}, one of them to hold out, "
                f"got {all_of_it[0]} alone"
            )
        order = np.random.default_rng((seed, number)).permutation(len(all_of_it))
        chosen = set(order[: max(1, round(len(order) / 5))].tolist())
        train[name] = [file for i, file in enumerate(all_of_it) if i not in chosen]
        held_out[name] = [file for i, file in enumerate(all_of_it) if i in chosen]
    return train, held_out


def _read(file: Path, channels: int, size: int | None, crop: bool) -> torch.Tensor:
    """[channels, H, W], uint8."""
    return pixels(opened(file), file, channels, size, crop)


def opened(file: Path) -> "Image":
    """The image in a file, whole.

    Raises:
        CorruptFileError: it cannot be read.
    """
    import PIL.Image
    import PIL.ImageOps

    with file.open("rb") as stream:
        try:
            with PIL.Image.open(stream) as image:
                image.load()
                return PIL.ImageOps.exif_transpose(image)  # as the camera was held
        except Exception as error:  # each of Pillow's decoders has its own
            raise CorruptFileError(
                file, stream.tell(), f"the image cannot be read any further ({error})"
            ) from error


def pixels(
    picture: "Image", file: Path, channels: int, size: int | None, crop: bool = True
) -> torch.Tensor:
    """[channels, H, W], uint8, scaled as :func:`load` does; ``file`` is named where it has more
    bits."""
    import PIL.Image

    if picture.mode.startswith(("I", "F")):
        raise ValueError(f"expected 8 bits a channel, {file} has more (Pillow's {picture.mode})")
    picture = picture.convert(_MODES[channels])
    if size is not None:
        picture = scaled(picture, size, crop, PIL.Image.Resampling.BILINEAR)
    found = torch.from_numpy(np.array(picture, np.uint8))
    return found.view(*found.shape[:2], channels).permute(2, 0, 1).contiguous()


def scaled(picture: "Image", size: int, crop: bool, by: "Resampling") -> "Image":
    """The square in the middle or, without ``crop``, all of it, at ``size`` pixels."""
    import PIL.ImageOps

    if crop:
        return PIL.ImageOps.fit(picture, (size, size), by)
    return picture.resize((size, size), by)
