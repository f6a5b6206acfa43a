"""CIFAR-10 and CIFAR-100 in their binary version: records of a label or two and 3,072 bytes, the
red, green and blue planes of a 32x32 image."""

from pathlib import Path

import numpy as np
import torch

from pydl.data.files import CorruptFileError, check_labels, contents
from pydl.data.split import Split, standardised

SIDE = 32
_IMAGE = 3 * SIDE * SIDE
_SOURCE = "A. Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
_LICENCE = "not stated"


def cifar10(folder: Path) -> Split:
    """CIFAR-10: 50,000 images in five files to learn from and 10,000 in another.

    Args:
        folder: ``cifar-10-batches-bin``, holds ``data_batch_1.bin`` to ``data_batch_5.bin``,
            ``test_batch.bin`` and ``batches.meta.txt`` with the names of the classes.

    Raises:
        FileNotFoundError: a file is missing.
        CorruptFileError: a file ends in the middle of an image, or has a label without a name.
    """
    classes = _names(folder / "batches.meta.txt", 10)
    files = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    return _load(files, folder / "test_batch.bin", [classes], of=0)


def cifar100(folder: Path, *, coarse: bool = False) -> Split:
    """CIFAR-100: 50,000 images of 100 classes to learn from and 10,000 others.

    Args:
        folder: ``cifar-100-binary``, holds ``train.bin``, ``test.bin``, ``fine_label_names.txt``
            and ``coarse_label_names.txt``.
        coarse: label by the 20 groups of classes.

    Raises:
        FileNotFoundError: a file is missing.
        CorruptFileError: a file ends in the middle of an image, or has a label without a name.
    """
    groups = _names(folder / "coarse_label_names.txt", 20)
    classes = _names(folder / "fine_label_names.txt", 100)
    of = 0 if coarse else 1
    return _load([folder / "train.bin"], folder / "test.bin", [groups, classes], of=of)


def _names(file: Path, expected: int) -> tuple[str, ...]:
    content = contents(file)
    names = tuple(line.strip() for line in content.decode("utf-8", "replace").splitlines() if line)
    if len(names) != expected:
        raise CorruptFileError(
            file, len(content), f"the file ends, expected {expected} lines, got {len(names)}"
        )
    return names


def _load(train: list[Path], held_out: Path, names: list[tuple[str, ...]], *, of: int) -> Split:
    """``names`` are those of each label byte of a record, ``of`` the one to learn."""
    for file in (*train, held_out):  # before the first is read
        if not file.is_file():
            raise FileNotFoundError(f"expected {file.name} in {file.parent}, found no such file")
    parts = [_read(file, names, of) for file in train]
    return standardised(
        (torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])),
        _read(held_out, names, of),
        classes=names[of],
        source=_SOURCE,
        licence=_LICENCE,
    )


def _read(file: Path, names: list[tuple[str, ...]], of: int) -> tuple[torch.Tensor, torch.Tensor]:
    content = contents(file)
    size = len(names) + _IMAGE
    count, rest = divmod(len(content), size)
    if rest or not count:
        raise CorruptFileError(
            file,
            len(content),
            f"the file ends, expected record {count} to reach from byte {count * size:,} to byte "
            f"{(count + 1) * size:,}",
        )
    records = np.frombuffer(content, np.uint8).reshape(count, size)
    for byte, known in enumerate(names):
        check_labels(file, records[:, byte].tobytes(), len(known), first=byte, step=size)
    images = torch.from_numpy(records[:, len(names) :].reshape(count, 3, SIDE, SIDE).copy())
    return images, torch.from_numpy(records[:, of].astype(np.int64))
