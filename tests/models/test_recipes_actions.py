"""The recipe on clips: what it learns from and measures on, and a short run of it."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from pydl.data import scenes
from pydl.recipes import Options, actions, find


def test_a_still_clip_repeats_its_middle_frame() -> None:
    data = actions.load(4, 3, 0)
    clips, motions = data.held_out.tensors
    assert clips.shape == (3, 1, 8, 32, 32) and len(data.train) == 4
    stopped, same = actions.still(data.held_out, 8).tensors
    assert torch.equal(stopped, clips[:, :, 4:5].expand_as(clips)) and torch.equal(same, motions)
    assert actions.still(data.held_out).tensors[0].shape == (3, 1, 1, 32, 32)
    known = scenes.clips(3, 8, seed=0, held_out=True)
    torch.testing.assert_close(clips * data.deviation + data.mean, known.frames)


def test_mirrored_clips_are_one_of_sixteen_forms() -> None:
    clip = torch.randn(1, 1, 3, 4, 4)
    forms = [
        form.flip([axis for bit, axis in enumerate((2, 3, 4)) if number >> bit & 1])
        for form in (clip, clip.transpose(3, 4))
        for number in range(8)
    ]
    found = actions.mirrored(clip.expand(200, -1, -1, -1, -1), torch.Generator().manual_seed(0))
    counts = [int((found == form).flatten(1).all(1).sum()) for form in forms]
    assert sum(counts) == 200 and min(counts) > 0
    one = actions.mirrored(torch.randn(5, 1, 1, 4, 4), torch.Generator())
    assert one.shape == (5, 1, 1, 4, 4)


def test_actions_leave_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "CLIPS", 32)
    monkeypatch.setattr(actions, "HELD_OUT", 16)
    console = Console(file=io.StringIO(), width=120)
    assert not find("actions").run(Options(tmp_path, epochs=1), console)  # it learns nothing yet
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "3-D network:" in said and "one frame:" in said and "the clip stopped:" in said
    assert page.count("% sure)</figcaption>") == 12 and 'class="tile missed"' in page
    assert page.count("<td>moving</td>") == 3 and "<code>MaxPool3d</code>" in page
    assert (tmp_path / "learning.png").is_file()


def test_a_network_of_one_frame_learns_from_one_frame(tmp_path: Path) -> None:
    data = actions.load(8, 4, 0)
    console = Console(file=io.StringIO())
    result = actions.learn("c3d-frame", data, Options(tmp_path, epochs=1), console)
    assert result.confusion.matrix.sum() == 4 and len(result.epochs) == 1
    with pytest.raises(RuntimeError):
        result.model(data.held_out.tensors[0])
