"""The recipes that look at training and testing: what they measure, and a short run of each."""

import io
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from pydl import models
from pydl.recipes import Options, depth, features, find, multi_crop
from pydl.train import Epoch


def ran(name: str, folder: Path) -> tuple[str, str]:
    """What a recipe says, and its page, after one epoch, in which it need not succeed."""
    console = Console(file=io.StringIO(), width=200)
    find(name).run(Options(folder, epochs=1), console)
    return console.file.getvalue(), (folder / "index.html").read_text(encoding="utf-8")


def smaller(monkeypatch: pytest.MonkeyPatch, recipe: ModuleType, **sizes: object) -> None:
    for name, value in sizes.items():
        monkeypatch.setattr(recipe, name, value)


def test_many_windows_are_shown_beside_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller(monkeypatch, multi_crop, EXAMPLES=64, TESTS=40)
    said, page = ran("multi-crop", tmp_path)
    assert page.count("<tr>") == 1 + len(multi_crop.WAYS)
    assert all(
        f"{training}, {way}:" in said
        for training in multi_crop.TRAININGS
        for way in multi_crop.WAYS
    )


def test_the_windows_of_a_way_are_averaged() -> None:
    images, labels = multi_crop.pictures(12, 0, held_out=True).tensors
    torch.manual_seed(0)
    model = models.lenet5()
    found = multi_crop.tested(model, images, labels)
    assert [one.windows for one in found.values()] == [1, 2, 5, 10, 3, 15, 30]
    windows = [
        images[..., y : y + 32, x : x + 32] for y, x in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4))
    ]
    expected = torch.stack([model(one).softmax(1) for one in windows]).mean(0)
    five = found[multi_crop.FIVE]
    torch.testing.assert_close(five.probabilities, expected)
    wrong = (expected.argmax(1) != labels).float().mean().item()
    assert five.error == pytest.approx(wrong)


def test_examples_are_those_in_which_the_ways_differ() -> None:
    from pydl.recipes import multi_crop_page

    tests = multi_crop.pictures(5, 0, held_out=True)
    one, five = torch.tensor([[1, 0, 0, 1, 1], [1, 1, 1, 0, 1]], dtype=torch.bool)
    results = {
        way: multi_crop.Result(1, torch.empty(5, 10), right)
        for way, right in ((multi_crop.ONE, one), (multi_crop.FIVE, five))
    }

    def shown(results: dict[str, multi_crop.Result]) -> list[str]:
        found = multi_crop.Found({"once": results}, models.lenet5(), tests, (0.0, 1.0))
        return multi_crop_page._examples(found)

    (section,) = shown(results)
    assert section.count(": the mean</b>") == 3 and section.count("<figure>") == 3 * 6
    assert shown(dict.fromkeys(results, results[multi_crop.ONE])) == []


def test_depths_are_compared_on_their_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller(monkeypatch, depth, DEPTHS=(8, 14), IMAGES=64)
    said, page = ran("depth", tmp_path)
    assert "plain, 14 layers: loss" in said and "residual, 8 layers: loss" in said
    assert page.count("<tr>") == 1 + 4 and page.count("<picture>") == 2


def test_worse_is_what_reads_fewer_of_its_training_images() -> None:
    def ends(first: float, last: float) -> depth.Curves:
        return {
            at: [Epoch(1, 0.0, accuracy, None, None, 0.1, 1.0)]
            for at, accuracy in zip((depth.DEPTHS[0], depth.DEPTHS[-1]), (first, last), strict=True)
        }

    assert depth.worse(ends(0.9, 0.5)) and not depth.worse(ends(0.9, 0.895))
    assert not depth.worse(ends(0.5, 0.9))


def test_maps_are_followed_to_their_end(tmp_path: Path) -> None:
    said, page = ran("features", tmp_path)
    assert "fully connected 4: correlation with its end" in said and "1.00 after 1" in said
    assert page.count("<tr>") == 1 + len(features.LAYERS)
    assert page.count("<picture>") == 2 + 2 * 2 * 3  # plots; strips of digits and of maps


def test_correlation_of_maps() -> None:
    maps = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    maps[:, 2] = 7.0  # a map that says nothing
    assert features.correlation(maps, 2 * maps + 3) == pytest.approx(1)
    assert features.correlation(maps, -maps) == pytest.approx(-1)
    both = torch.stack([maps[:, 0], -maps[:, 1]], 1)
    assert features.correlation(maps[:, :2], both) == pytest.approx(0, abs=1e-6)


def test_what_excites_a_map_most_and_when_it_settles() -> None:
    maps = torch.zeros(4, 3, 3)
    maps[2, 1, 1], maps[3] = 5.0, 1.0  # a peak, and more of less
    assert features.strongest(maps) == 2
    curve = {0: 0.5, 1: 0.96, 2: 0.9, 5: 0.97, 10: 1.0}
    assert features.settled(curve) == 5 and features.settled({0: 0.2, 1: 0.3}) == 1
    assert features.way(curve) == pytest.approx({0: 0, 1: 0.92, 2: 0.8, 5: 0.94, 10: 1})
