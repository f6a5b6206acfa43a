"""The recipe that writes sentences about scenes: its baselines, where it looks, and a short run."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("sacrebleu")
pytest.importorskip("matplotlib")

from pydl.recipes import Options, caption_scenes, find


@pytest.fixture
def few() -> list:
    return caption_scenes.of_digits(12, 0, held_out=True)


def test_baselines_say_what_was_said(few: list) -> None:
    again = [*few[3:6], few[3]]
    assert caption_scenes.nearest(few, again) == [scene.sentence for scene in again]
    doubled = [*few, few[5], few[5]]
    assert caption_scenes.frequent(doubled, 2) == [few[5].sentence] * 2
    right = ["a three left of a seven", "an eight above a two"]
    found = caption_scenes.score([right[0], "an eight above a one"], right)
    assert found.exact == 0.5 and 0 < found.bleu < 100
    assert caption_scenes.score(right, right) == caption_scenes.Score(1, pytest.approx(100))


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


def test_scenes_leave_a_page(few: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRAIN", 40), ("HELD_OUT", 10)):
        monkeypatch.setattr(caption_scenes, name, value)
    console = Console(file=io.StringIO(), width=120)
    options = Options(tmp_path, epochs=2)
    assert not find("caption-scenes").run(options, console)  # it learns little in 4 steps
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "epoch 2: loss " in said and "the most frequent sentence: " in said
    assert "<code>LSTMCell</code>" in page and 'class="tile missed"' in page
    assert "sentences that are not right" in page and (tmp_path / "learning.png").is_file()
