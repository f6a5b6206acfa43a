"""The recipes for segmentation, run short: what they say, and what they leave."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("PIL")

import PIL.Image

from pydl.data import CorruptFileError, masks, scenes
from pydl.recipes import Options, find, segment_folder, segment_scenes, segmentation
from pydl.visualize.palette import LIGHT
from pydl.visualize.segmentation import painted, panels, segmented


def run(name: str, options: Options) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=200)
    return find(name).run(options, console), console.file.getvalue()


def test_scenes_are_learned_a_little_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TRAIN", 24), ("HELD_OUT", 8), ("SIDE", 32), ("EPOCHS", 2)):
        monkeypatch.setattr(segment_scenes, name, value)
    reached, said = run("segment-scenes", Options(tmp_path))
    assert not reached  # in two epochs
    assert "24 pictures to learn from, 8 held out, 11 classes" in said
    assert "the commonest class: mean IoU 0.0" in said
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'class="tile missed"' in page and page.count("&#9632;") == 11
    assert "does not count" not in page
    assert "<code>BatchNormAct2d</code>" in page and (tmp_path / "segmented1.png").is_file()


def test_the_baseline_takes_every_pixel_for_the_background() -> None:
    split = segment_scenes.load(6, 5, seed=0)
    found, truth = segmentation.commonest(split), split.held_out.tensors[1]
    share = (truth == 0).double().mean().item()
    assert found.accuracy == pytest.approx(share) == pytest.approx(found.jaccard[0].item())
    assert not found.jaccard[1:].nan_to_num().any()
    occur = len(truth.unique())
    assert found.mean_jaccard == pytest.approx(share / occur)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten scenes as files, every digit of one class, the first row of none."""
    made = tmp_path / "data"
    for part in ("images", "masks"):
        (made / part).mkdir(parents=True)
    for number, scene in enumerate(scenes.scenes(10, 32, digits=(1, 1), scale=(0.6, 0.7))):
        pixels = (255 * scene.image[0]).round().byte().numpy()
        PIL.Image.fromarray(pixels).save(made / "images" / f"{number}.png")
        map = (scene.map > 0).long()
        map[0] = masks.IGNORED
        masks.write(made / "masks" / f"{number}.png", map, ((0, 0, 0), (9, 9, 9)))
    return made


def test_ones_own_images_are_learned(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_folder, "SIDE", 32)
    out = tmp_path / "out"
    reached, said = run("segment-folder", Options(out, epochs=12, data=folder))
    assert reached, said
    assert "8 pictures to learn from, 2 held out, 2 classes" in said
    names = masks.load(folder).held_out
    page = (out / "index.html").read_text(encoding="utf-8")
    assert all(f"<b>{name}</b>: " in page for name in names) and "does not count" in page
    found = sorted(file.name for file in (out / "masks").iterdir())
    assert found == sorted(f"{name}.png" for name in names)
    mask = np.array(PIL.Image.open(out / "masks" / found[0]))
    assert mask.shape == (32, 32) and set(np.unique(mask)) == {0, 1}


def test_nothing_is_written_for_a_folder_that_cannot_be_read(tmp_path: Path, folder: Path) -> None:
    (folder / "masks" / "3.png").write_bytes(b"no image")
    with pytest.raises(CorruptFileError, match=r"masks/3\.png"):
        run("segment-folder", Options(tmp_path / "out", data=folder))
    assert not list((tmp_path / "out").iterdir())


def test_a_recipe_has_its_own_data_or_takes_yours(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="segment-folder is for data of your own: --data FOLDER"):
        run("segment-folder", Options(tmp_path))
    with pytest.raises(ValueError, match="segment-scenes has data of its own, and takes no --data"):
        run("segment-scenes", Options(tmp_path, data=tmp_path))


def test_what_differs_is_shown_and_what_does_not_count_is_not() -> None:
    truth, read = torch.tensor([[0, 1], [1, -100]]), torch.tensor([[0, 0], [1, 1]])
    colours = ((0, 0, 0), (255, 0, 0))
    image = torch.rand(1, 2, 2)
    shown = panels(LIGHT, image, truth, read, colours)
    assert shown.shape == (4, 2, 2, 3) and np.array_equal(shown[0, :, :, 1], image[0].numpy())
    assert np.allclose(shown[1], painted(truth, colours, tuple(shown[1, 1, 1].tolist())))
    assert shown[1, 0, 1].tolist() == [1, 0, 0] and shown[2, 0, 1].tolist() == [0, 0, 0]
    same, differs, other, void = shown[3].reshape(4, 3).tolist()
    assert same == other and len({tuple(same), tuple(differs), tuple(void)}) == 3
    light, dark = (
        np.array(PIL.Image.open(io.BytesIO(one))) for one in segmented(image, truth, read, colours)
    )
    assert light.shape == dark.shape == (2, 4 * 2 + 3, 4)
    assert not light[:, 2].any() and (light[:, :2, 3] == 255).all()  # nothing is between them
