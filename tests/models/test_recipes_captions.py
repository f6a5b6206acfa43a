"""The recipes that write sentences about scenes, their regions and clips: baselines, where they
look, and short runs."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")

from pydl.data.episodes import Episodes, episodes
from pydl.recipes import Options, caption_clips, caption_regions, caption_scenes, find, writing


@pytest.fixture
def few() -> list:
    return caption_scenes.of_digits(12, 0, held_out=True)


@pytest.fixture
def clips() -> Episodes:
    return episodes(6, held_out=True)


def run(name: str, path: Path) -> tuple[str, str]:
    """What a run of two epochs says, and its page; so short, it reaches nothing."""
    console = Console(file=io.StringIO(), width=120)
    assert not find(name).run(Options(path, epochs=2), console)
    page = (path / "index.html").read_text(encoding="utf-8")
    assert 'class="tile missed"' in page and "sentences that are not right" in page
    assert (path / "learning.png").is_file()
    said = console.file.getvalue()
    assert "epoch 2: loss " in said and "the most frequent sentence: " in said
    return said, page


def test_baselines_say_what_was_said(few: list) -> None:
    images, sentences = torch.stack([one.image for one in few]), [one.sentence for one in few]
    again = [3, 4, 5, 3]
    assert writing.nearest(images[again], images, sentences) == [sentences[i] for i in again]
    assert writing.frequent([*sentences, *sentences[5:6] * 2], 2) == [sentences[5]] * 2
    right = ["a three left of a seven", "an eight above a two"]
    found = writing.score([right[0], "an eight above a one"], right)
    assert found.exact == 0.5 and 0 < found.bleu < 100
    assert writing.score(right, right) == writing.Score(1, pytest.approx(100))


# -- scenes


def test_looking_is_at_the_digits_own_place(few: list) -> None:
    side = 8
    texts = [scene.sentence for scene in few]
    weights = torch.zeros(12, len(few), side * side)
    for i, scene in enumerate(few):
        steps = [n for n, word in enumerate(texts[i].split()) if word in caption_scenes.WORDS]
        for step, (left, top, right, bottom) in zip(steps, scene.boxes.tolist(), strict=True):
            x, y = (left + right) / 2, (top + bottom) / 2
            weights[
                step,
                i,
                int(y * side / caption_scenes.SIDE) * side + int(x * side / caption_scenes.SIDE),
            ] = 1
    looked = caption_scenes.pointing(few, texts, weights)
    assert len(looked) == sum(len(scene.labels) for scene in few)
    assert sum(looked) > 0.8 * len(
        looked
    )  # a digit narrower than a place may lie beside its middle
    assert caption_scenes.pointing(few, ["nothing"] * len(few), weights) == []
    assert sum(caption_scenes.pointing(few, texts, 1 - weights)) < 0.2 * len(looked)  # at a corner


def test_scenes_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 40), ("HELD_OUT", 10)):
        monkeypatch.setattr(caption_scenes, name, value)
    _, page = run("caption-scenes", tmp_path)
    assert "<code>LSTMCell</code>" in page


# -- regions


def test_regions_go_with_their_image_and_sentence(few: list) -> None:
    sentences = caption_regions.said(few)
    assert sentences[: len(few[0].regions)] == list(few[0].regions)
    words = writing.vocabulary(sentences)
    examples = caption_regions.encoded(few, words)
    (images, begun, regions), following = caption_regions.together(examples)
    assert images.shape == (12, 1, 64, 64) and begun.shape[1] == len(regions) == len(sentences)
    ends = [words.decode(column) for column in following.T]
    assert ends == sentences
    for i, scene in enumerate(few):
        assert torch.equal(regions[regions[:, 0] == i, 1:], scene.boxes)
    (_, _, whole), same = caption_regions.blind(examples)
    assert torch.equal(same, following) and torch.equal(whole[:, 0], regions[:, 0])
    assert (whole[:, 1:] == torch.tensor([0, 0, 64, 64])).all()


def test_crops_are_the_regions_pixels(few: list) -> None:
    found = caption_regions.crops(few)
    left, top, right, bottom = few[0].boxes[0].int().tolist()
    part = few[0].image[:, top:bottom, left:right]
    assert found.shape[1:] == (1, 16, 16)
    assert found[0].mean().item() == pytest.approx(part.mean().item(), rel=0.05)


def test_parts_of_sentences_are_counted() -> None:
    right = ["a small three at the top left", "a large two in the centre"]
    written = ["a small four at the top left", "a small two on"]
    assert caption_regions.parts(written, right) == (0.5, 0.5, 0.5)
    assert caption_regions.parts(["", "a"], right) == (0, 0, 0)


def test_regions_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 30), ("HELD_OUT", 10)):
        monkeypatch.setattr(caption_regions, name, value)
    said, page = run("caption-regions", tmp_path)
    assert "the same network, told the whole picture: " in said
    assert "<code>RoIAlign</code>" in page and "color:var(--loss)" in page


# -- clips


def test_the_middle_frame_is_left(clips: Episodes) -> None:
    one = caption_clips.middle(clips)
    assert torch.equal(one.frames[:, :, 0], clips.frames[:, :, 5]) and one.frames.shape[2] == 1
    assert torch.equal(one.acts[:, 0], clips.acts[:, 5]) and one.sentences == clips.sentences


def test_digits_and_acts_of_sentences_are_counted() -> None:
    right = ["a three moves left then grows", "an eight grows then turns left"]
    written = ["a three moves up then grows", "a"]
    assert caption_clips.parts(written, right) == [0.5, 0, 0.5]
    assert caption_clips.parts(right, right) == [1, 1, 1]


def test_looking_is_at_the_frames_in_which_it_is_done(clips: Episodes) -> None:
    weights = torch.zeros(8, 6, 10)
    weights[2, :, 1] = weights[4:, :, 8] = 1  # at the first verb early, at all later words late
    texts = list(clips.sentences)
    assert caption_clips.pointing(clips, texts, weights) == [True] * 12
    assert caption_clips.pointing(clips, ["nothing", *texts[1:]], weights.flip(2)) == [False] * 10


def test_clips_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 24), ("HELD_OUT", 8)):
        monkeypatch.setattr(caption_clips, name, value)
    said, page = run("caption-clips", tmp_path)
    assert "what is done in a frame: LRCN " in said and "guessing 12.5 %" in said
    assert "the same network, told one frame: " in said
    assert "<code>LSTM</code>" in page and "<td>turns left</td>" in page
    assert (tmp_path / "attention4.png").is_file()
