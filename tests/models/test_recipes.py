"""Recipes: the table of them, and a short run of what each is made of."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

pytest.importorskip("sklearn")

from pydl import models
from pydl.data import MissingExtraError, digits
from pydl.recipes import RECIPES, Options, Recipe, find
from pydl.recipes import digits as lenet5_on_digits


def test_every_recipe_is_found_by_its_name() -> None:
    assert "digits" in RECIPES and all(find(name).name == name for name in RECIPES)
    with pytest.raises(ValueError, match="no recipe is called 'cats'; there are digits"):
        find("cats")


def test_nothing_is_trained_for_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    ran: list[Options] = []
    recipe = Recipe("new", "a result", (), lambda options, console: bool(ran.append(options)))
    console = Console(file=io.StringIO())
    assert recipe.run(Options(tmp_path / "a" / "b"), console) is False
    assert len(ran) == 1 and (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        recipe.run(Options(tmp_path / "file"), console)
    with pytest.raises(ValueError, match="backend must be one of auto"):
        Options(tmp_path, backend="gpu")
    assert len(ran) == 1


def test_a_recipe_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    console = Console(file=io.StringIO())
    with pytest.raises(MissingExtraError, match=r"scikit-learn and matplotlib missing"):
        find("digits").run(Options(tmp_path / "out"), console)
    assert not (tmp_path / "out").exists()


def test_lenet5_learns_digits_and_does_so_again() -> None:
    split = digits.load(0)

    def run() -> tuple[torch.nn.Module, list]:
        torch.manual_seed(0)
        model = models.lenet5()
        return model, list(lenet5_on_digits.train(model, split, epochs=4, seed=0))

    (model, epochs), (again, _) = run(), run()
    assert epochs[-1].loss < epochs[0].loss and epochs[-1].held_out_accuracy > 0.8
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
