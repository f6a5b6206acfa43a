"""Files as bytes, compressed or not, and the error for a broken one."""

import gzip
import zlib
from pathlib import Path

_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 16


class CorruptFileError(ValueError):
    """A file does not hold what it should: names the file, the byte and what was expected there."""

    def __init__(self, file: Path, offset: int, problem: str) -> None:
        super().__init__(file, offset, problem)
        self.file, self.offset, self.problem = file, offset, problem

    def __str__(self) -> str:
        return f"{self.file}, byte {self.offset:,}: {self.problem}"


def contents(file: Path) -> bytes:
    """A file's bytes, unpacked if it was packed with gzip, whatever its name.

    Raises:
        CorruptFileError: the packed file is damaged or cut off.
    """
    with file.open("rb") as packed:
        if packed.read(len(_GZIP)) != _GZIP:
            return file.read_bytes()
        packed.seek(0)
        blocks: list[bytes] = []
        try:
            with gzip.GzipFile(fileobj=packed) as unpacked:
                while block := unpacked.read(_BLOCK):
                    blocks.append(block)
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptFileError(
                file,
                packed.tell(),
                f"the gzip file cannot be unpacked any further, "
                f"after {sum(map(len, blocks)):,} bytes of content ({error})",
            ) from error
    return b"".join(blocks)


def check_labels(file: Path, labels: bytes, classes: int, first: int = 0, step: int = 1) -> None:
    """Raises :class:`CorruptFileError` at the first label that is not below ``classes``.

    Args:
        file: to be named.
        labels: one a byte.
        classes: how many there are.
        first: where the first label lies in the file.
        step: bytes from one label to the next.
    """
    for number, label in enumerate(labels if labels and max(labels) >= classes else b""):
        if label >= classes:
            raise CorruptFileError(
                file,
                first + number * step,
                f"expected a label from 0 to {classes - 1}, got {label}",
            )
