"""The recipes that read lines of text: their images, their baselines, and short runs."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("rapidfuzz")
pytest.importorskip("PIL")

from PIL import Image

from pydl.data import CorruptFileError, lines
from pydl.recipes import Options, find, read_digits, reading


def run(name: str, options: Options) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=120)
    reached = find(name).run(options, console)
    return reached, console.file.getvalue()


def test_strings_of_digits_are_scenes_and_what_they_say() -> None:
    made = lines.strings(6, 4, seed=3)
    assert made.train.images.shape == (6, 1, 32, 100) and made.held_out.images.shape[0] == 4
    found = lines.of_digits(4, 3, held_out=True)
    assert [lines.said(scene) for scene in found] == list(made.held_out.texts)
    assert all(1 <= len(text) <= 5 and text.isdigit() for text in made.train.texts)
    for scene in found:
        by_place = sorted(zip(scene.boxes[:, 0].tolist(), scene.labels.tolist(), strict=True))
        assert lines.said(scene) == "".join(str(label) for _, label in by_place)


def test_an_alphabet_numbers_characters_behind_the_blank() -> None:
    alphabet = reading.Alphabet(["cab", "b"])
    assert len(alphabet) == 4
    encoded = alphabet.encode(["abba", "c?", ""])
    assert encoded.tolist() == [[1, 2, 2, 1], [3, 0, 0, 0], [0, 0, 0, 0]]
    assert alphabet.decode((3, 1, 2)) == "cab"


def test_errors_are_edits() -> None:
    found = reading.score(["123", "12", "1234", "9"], ["123", "123", "124", "8"])
    assert found == reading.Score(exact=0.25, errors=3 / 10)


def test_the_nearest_line_says_what_is_read() -> None:
    images = torch.rand(5, 1, 32, 100)
    train = lines.Part(images, list("abcde"))
    held_out = lines.Part(images[[3, 0]] + 0.01, ["x", "y"])
    assert reading.nearest(lines.Lines(train, held_out, "", "")) == ["d", "a"]


def test_connected_pixels_are_digits_where_they_lie_apart() -> None:
    image = torch.zeros(1, 32, 64)
    image[0, 8:24, 40:44] = 0.9  # a second digit
    image[0, 5:21, 10:20] = 0.8  # a first one
    image[0, 2:6, 30:34] = 1.0  # a scrap
    first, second = read_digits.parts(image)
    assert first.shape == (8, 8) and first.sum() > second.sum() > 0
    assert second[:, :3].max() == 0 and second[:, 3:5].min() > 0.5  # in the middle
    assert read_digits.parts(torch.zeros(1, 32, 64)) == []


def test_the_baseline_reads_most_digits_of_clean_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    train = lines.of_digits(60, 0, held_out=False)
    held_out = lines.of_digits(30, 0, held_out=True)
    read = read_digits.segmented(train, held_out)
    assert reading.score(read, [lines.said(scene) for scene in held_out]).errors < 0.4


def test_digits_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 40), ("HELD_OUT", 6)):
        monkeypatch.setattr(read_digits, name, value)
    monkeypatch.setattr(reading, "MAPS", (4, 4, 8, 8, 8, 8, 8))
    reached, said = run("read-digits", Options(tmp_path, epochs=2))
    assert not reached  # it learns little in 4 steps
    assert "epoch 2: loss " in said and "nearest neighbour of the whole line: " in said
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<code>LSTM</code>" in page and 'class="tile missed"' in page
    assert "6 held-out lines that are not right" in page
    assert "CRNN&#x27;s columns, a decoder with attention" in page
    for plot in ("columns4", "attention4", "learning", "learning1"):
        assert (tmp_path / f"{plot}.png").is_file()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty images, dark bars on white: a bar on the left is an a, one on the right a b."""
    draw = np.random.default_rng(0)
    path = tmp_path / "words"
    path.mkdir()
    listed = []
    for number in range(20):
        greys = draw.integers(200, 256, (20, 60), dtype=np.uint8)
        left = number % 2
        greys[4:16, (10, 40)[left] : (14, 44)[left]] = 20
        Image.fromarray(greys).save(path / f"{number}.png")
        listed.append(f"{number}.png\t{'ab'[left]}\n")
    (path / "lines.tsv").write_text("".join(listed), encoding="utf-8")
    return path


def test_a_folder_of_ones_own_is_read(tmp_path: Path, folder: Path) -> None:
    made = lines.load(folder)
    assert len(made.train.texts) == 18 and len(made.held_out.texts) == 2
    for image, text in zip(made.train.images, made.train.texts, strict=True):
        bright = image[0].mean(0).argmax().item()  # ink is bright, whatever it was
        assert (bright < 50) == (text == "a")
    turned = lines.load(folder, dark=False).train.images
    torch.testing.assert_close(turned, 1 - made.train.images)
    reached, said = run("read-lines", Options(tmp_path / "out", epochs=2, data=folder))
    assert "nearest neighbour of the whole image" in (tmp_path / "out/index.html").read_text()
    rows = [line.split("\t") for line in (tmp_path / "out/read.tsv").read_text().splitlines()]
    assert [right for right, _ in rows] == list(made.held_out.texts) and "epoch 2: " in said
    assert not reached


def test_what_cannot_be_read_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lines.load(tmp_path / "none")
    listed = folder / "lines.tsv"
    listed.write_text(listed.read_text() + "21.png\t\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a text for 21\.png in .*lines\.tsv, got none"):
        lines.load(folder)
    listed.write_text(listed.read_text().replace("\t\n", "\n"), encoding="utf-8")
    with pytest.raises(CorruptFileError, match="expected two texts and a tab, got 0 tabs"):
        lines.load(folder)
    with pytest.raises(ValueError, match="read-lines is for data of your own"):
        find("read-lines").run(Options(tmp_path), Console(file=io.StringIO()))
