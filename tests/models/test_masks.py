"""Images with masks: what is read, and what is not."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

import PIL.Image

from pydl.data import CorruptFileError, masks

COLOURS = ((0, 0, 0), (200, 10, 10), (10, 10, 200))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten images of a bright bar on a dark ground, whose masks say 1 for the bar, 2 for the lowest
    row and nothing of the first column."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(10):
        pixels = np.full((12, 16, 3), 20, np.uint8)
        map = torch.zeros(12, 16, dtype=torch.int64)
        pixels[:, number : number + 3] = 220
        map[:, number : number + 3] = 1
        map[-1], map[:, 0] = 2, masks.IGNORED
        PIL.Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        masks.write(tmp_path / "masks" / f"{number}.png", map, COLOURS)
    return tmp_path


def test_masks_come_back_as_they_were_written(folder: Path) -> None:
    data = masks.load(folder)
    (images, maps), (others, held_out) = data.split.train.tensors, data.split.held_out.tensors
    assert images.shape == (8, 3, 12, 16) and maps.shape == (8, 12, 16)
    assert others.shape == (2, 3, 12, 16) and maps.dtype == torch.int64
    assert data.colours == COLOURS and data.split.classes == ("class 0", "class 1", "class 2")
    for name, image, map in zip(data.held_out, others, held_out, strict=True):
        number = int(name)
        bright = image[0] > 0
        assert bright[0].nonzero().flatten().tolist() == list(range(number, number + 3))
        assert torch.equal((map == 1)[:-1, 1:], bright[:-1, 1:])
        assert (map[:, 0] == masks.IGNORED).all() and (map[-1, 1:] == 2).all()
    assert not list(folder.rglob("*.partial"))


def test_the_split_is_the_seeds(folder: Path) -> None:
    names = [masks.load(folder, seed).held_out for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_pixels_and_masks_are_scaled_alike(folder: Path) -> None:
    data = masks.load(folder, size=24)
    images, maps = data.split.train.tensors
    assert images.shape[2:] == maps.shape[1:] == (24, 24)
    assert set(maps.unique().tolist()) <= {masks.IGNORED, 0, 1, 2}
    bright = images[:, 0] > (images.max() + images.min()) / 2
    told = (maps == 0) | (maps == 1)
    assert told.sum() > 1000 and torch.equal(bright[told], maps[told] == 1)


def test_black_and_white_masks_have_two_classes(folder: Path) -> None:
    for file in (folder / "masks").iterdir():
        white = np.array(PIL.Image.open(file)) == 1
        PIL.Image.fromarray(255 * white.astype(np.uint8)).save(file)
    data = masks.load(folder)
    assert data.split.train.tensors[1].unique().tolist() == [0, 1]
    assert data.split.classes == ("class 0", "class 1") and data.colours == masks.palette(2)


def test_classes_have_names(folder: Path) -> None:
    (folder / "classes.txt").write_text("ground\nbar\nfloor\nroof\n", encoding="utf-8")
    assert masks.load(folder).split.classes == ("ground", "bar", "floor", "roof")
    (folder / "classes.txt").write_text("ground\nbar\n", encoding="utf-8")
    said = r"expected numbers below 2, .* in .*masks/0\.png, got 2"
    with pytest.raises(ValueError, match=said):
        masks.load(folder)


def test_pascals_folders_are_known_too(folder: Path) -> None:
    (folder / "images").rename(folder / "JPEGImages")
    (folder / "masks").rename(folder / "SegmentationClass")
    (folder / "SegmentationClass" / "3.png").unlink()  # which has masks for some of its images
    data = masks.load(folder)
    assert len(data.split.train) + len(data.split.held_out) == 9


def test_pascals_colours() -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {number: masks.palette(21)[number] for number in known} == known


def cut(folder: Path, part: str) -> None:
    file = folder / part / "4.png"
    file.write_bytes(file.read_bytes()[:-30])


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_file_that_is_cut_off_is_named(folder: Path, part: str) -> None:
    cut(folder, part)
    with pytest.raises(CorruptFileError, match=rf"{part}/4\.png, byte .*cannot be read"):
        masks.load(folder)


def spoilt(name: str, folder: Path) -> None:
    mask = folder / "masks" / "4.png"
    picture = PIL.Image.open(mask)
    if name == "missing mask":
        mask.unlink()
    elif name == "missing image":
        (folder / "images" / "4.png").unlink()
    elif name == "colours":
        picture.convert("RGB").save(mask)
    elif name == "size":
        picture.resize((8, 8)).save(mask)
    elif name == "another size":
        for part in ("images", "masks"):
            file = folder / part / "4.png"
            PIL.Image.open(file).resize((8, 8)).save(file)
    elif name == "one":
        for file in folder.rglob("*.png"):
            if file.stem != "4":
                file.unlink()
    else:
        (folder / "masks").rename(folder / "elsewhere")


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("missing mask", FileNotFoundError, r"an image file 4\.\* in .*masks"),
        ("missing image", None, ""),
        ("colours", ValueError, r"numbers of classes in .*masks/4\.png, .* got Pillow's RGB"),
        ("size", ValueError, r"masks/4\.png to have the size of .*images/4\.png, 12x16, got 8x8"),
        ("another size", ValueError, r"images/4\.png to have the size of .*images/0\.png"),
        ("one", ValueError, "at least two images"),
        ("no folder", FileNotFoundError, "expected folders images and masks or JPEGImages and"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, name: str, error, said: str) -> None:
    spoilt(name, folder)
    if error is None:  # a mask of nothing is left alone
        assert len(masks.load(folder).split.train) == 7
        return
    with pytest.raises(error, match=said):
        masks.load(folder)
