"""The recipe ``classifiers``: a network beside its twin, what is kept of it, and what documents and
pages say of it."""

import functools
import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.utils.data import TensorDataset

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

import pydl
from pydl import models
from pydl.data import Split, digits
from pydl.models.meta import hollow
from pydl.recipes import Options, classifiers, classifiers_page, twins
from pydl.recipes.classifiers_file import Curves, File, Row, errors, times

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import shown

LENET5 = twins.Plan("lenet5", 32, 1, 0.02)
ROW = Row(
    network="lenet5",
    pixels=32,
    epochs=2,
    steps=6,
    seed=0,
    backend="auto",
    accuracy=0.9861,
    accuracy_twin=0.9833,
    accuracy_baseline=0.9639,
    error=3e-6,
    error_twin=1e-6,
    times=3.0,
    seconds=12.5,
    seconds_twin=13.25,
    step_ms=4.0,
    step_ms_twin=5.0,
    samples=100,
    load=2.5,
    share=0.25,
    served="pool 20.0 % (4), bias_act 5.0 % (8)",
    facts={"device": "a processor", "threads": "1", "cores": "2", "date": "2026-11-29"},
)
CURVES = Curves((2.5, 2.0, 1.5, 1.0, 0.5, 0.25), (2.5, 2.0, 1.5, 1.0, 0.5, 0.125))


@pytest.fixture(scope="module")
def split() -> Split:
    """A few of the digits."""
    whole = digits.load(0)
    train, held_out = (
        TensorDataset(*(tensor[:count] for tensor in part.tensors))
        for part, count in ((whole.train, 320), (whole.held_out, 64))
    )
    return replace(whole, train=train, held_out=held_out)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, split: Split) -> None:
    monkeypatch.setattr(classifiers, "PLANS", (LENET5,))
    monkeypatch.setattr(twins, "SECONDS", 0.05)
    monkeypatch.setattr(digits, "load", lambda seed: split)


@pytest.mark.usefixtures("quick")
def test_a_network_learns_as_its_twin_does_and_the_page_says_who_served(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=400)
    assert classifiers.RECIPE.run(Options(tmp_path), console) is False  # one epoch is too few
    file = File(tmp_path)
    row, curves = file.rows["lenet5"], file.curves["lenet5"]
    assert row.steps == len(curves.ours) == len(curves.twin) == 10
    assert len(set(curves.ours)) > 5 and row.alike and not row.shown
    assert row.accuracy == pytest.approx(row.accuracy_twin, abs=0.05)
    assert 0.9 < row.accuracy_baseline < 0.99
    assert row.step_ms > 0 and row.samples >= 7 and row.facts["command"] == "pydl run classifiers"
    assert 0 < row.share < 1 and "pool" in row.served
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for said in (f"{100 * row.share:.1f} %", row.served, f"{row.ratio:.2f}&times;"):
        assert said in page
    assert (tmp_path / "classifiers.png").stat().st_size > 5_000
    assert "lenet5:" in console.file.getvalue()

    before = file.path.stat().st_mtime_ns
    classifiers.run((LENET5,), Options(tmp_path), file, console, command="again")
    assert file.path.stat().st_mtime_ns == before  # it was there
    classifiers.run((LENET5,), Options(tmp_path, seed=1), file, console, command="again")
    assert File(tmp_path).rows["lenet5"].seed == 1


def test_a_twin_that_differs_is_noticed(
    split: Split, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(twins, "SECONDS", 0.01)
    as_torch = twins.as_torch

    def spoilt(model: nn.Module) -> nn.Module:
        twin = as_torch(model)
        twin.pool1 = nn.AvgPool2d(2)  # of the same shape
        return twin

    monkeypatch.setattr(twins, "as_torch", spoilt)
    row, _ = twins.beside_its_twin(LENET5, split, Options(tmp_path), 0.96, ROW.facts)
    assert row.error > 10 * row.error_twin and row.times > 10 and not row.alike
    assert not replace(row, accuracy=1.0, accuracy_twin=1.0).shown
    assert "its losses are others" in classifiers.said(row)


def test_first_losses_are_those_of_the_same_training_in_float64(split: Split) -> None:
    """With the same masks of dropout too."""
    plan = twins.Plan("alexnet-torchvision", 63, 1, 1e-3, adam=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 63 * 63, 50), nn.Dropout(), nn.Linear(50, 10))
    exact = twins.exact_losses(plan, model, split, 1, seed=3)
    assert len(exact) == 5 and next(model.parameters()).dtype == torch.float32
    found = twins.learn(plan, model, split, 1, seed=3).losses
    assert found[:5] == pytest.approx(exact, rel=1e-5) and found[0] != exact[0]


def test_masks_of_dropout_are_the_twins_while_both_train() -> None:
    model = pydl.nn.Sequential(pydl.nn.Dropout(0.5), pydl.nn.Sequential(pydl.nn.Dropout(0.3)))
    x = torch.ones(1000)
    with twins.masks_of_pytorch(model):
        torch.manual_seed(3)
        ours = model(x)
    torch.manual_seed(3)
    assert torch.equal(ours, twins.as_torch(model)(x))
    assert model[0].backend is None and model[1][0].backend is None


def test_every_plan_is_of_a_network_that_tells_ten_classes_apart() -> None:
    for plan in classifiers.PLANS:
        network = hollow(functools.partial(plan.build, 10))
        assert list(network.parameters())[-1].shape == (10,), plan.network
    assert len({plan.network for plan in classifiers.PLANS}) == len(classifiers.PLANS)
    with pytest.raises(ValueError, match="is for regression, not for classification"):
        models.find("regression").for_classes(10)


def test_errors_are_compared_step_by_step() -> None:
    """A wrong first step is not excused by what rounding makes of a later one."""
    exact = [2.0, 1.0, 0.5]
    twins = errors([2.00001, 1.0, 0.6, 0.1], exact)
    assert twins == pytest.approx([5e-6, 0, 0.2])
    assert times(errors([2.00002, 1.0, 0.7], exact), twins) == pytest.approx(2)
    assert times(errors([2.0001, 1.0, 0.5], exact), twins) == pytest.approx(10)
    assert times([1e-6], [0.0]) < 1  # less than a few roundings


def test_rows_and_curves_come_back(tmp_path: Path) -> None:
    file = File(tmp_path)
    assert file.rows == {} and file.curves == {}
    other = replace(ROW, network="stn", served="", share=0.0, facts={**ROW.facts, "torch": "2"})
    file.put(ROW, CURVES)
    file.put(other, CURVES)
    file.put(replace(ROW, seed=7), CURVES)
    again = File(tmp_path)
    assert list(again.rows) == ["lenet5", "stn"] and again.rows["stn"] == other
    assert again.rows["lenet5"] == replace(ROW, seed=7, facts={**ROW.facts, "torch": ""})
    assert again.curves == {"lenet5": CURVES, "stn": CURVES}
    assert ROW.ratio == 1.25 and ROW.shown


def test_what_is_kept_is_what_was_written(tmp_path: Path) -> None:
    """Or a page would say 1.14 times at first and 1.13 when it is made again."""
    file = File(tmp_path)
    file.put(replace(ROW, step_ms=26.3249, step_ms_twin=29.876), Curves((2.34567,), (2.34571,)))
    again = File(tmp_path)
    assert again.rows == file.rows and again.curves == file.curves
    row = again.rows["lenet5"]
    assert (row.step_ms, row.step_ms_twin) == (26.32, 29.88) and f"{row.ratio:.2f}" == "1.14"
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "change",
    (
        {"accuracy": 0.9667},
        {"accuracy_twin": 0.9667},
        {"accuracy_baseline": 0.99},
        {"times": 8.5},
    ),
)
def test_what_is_no_evidence(change: dict[str, float]) -> None:
    assert not replace(ROW, **change).shown


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is missing; what is asked for by name is done again."""
    plans = tuple(replace(LENET5, network=name, epochs=2) for name in ("lenet5", "stn", "resnet20"))
    ran: list[str] = []

    def found(plan: twins.Plan, *_: object) -> tuple[Row, Curves]:
        if plan.network == "resnet20" and len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(plan.network)
        return replace(ROW, network=plan.network), CURVES

    monkeypatch.setattr(classifiers, "PLANS", plans)
    monkeypatch.setattr(classifiers, "beside_its_twin", found)
    monkeypatch.setattr(classifiers, "linear_accuracy", lambda seed: 0.96)
    pages: list[list[str]] = []
    monkeypatch.setattr(classifiers, "show", lambda file, *_: pages.append(list(file.rows)))
    monkeypatch.setattr(shown, "SHOWN", tmp_path)
    monkeypatch.setattr(shown, "ROOT", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        shown.main([])
    assert list(File(tmp_path).rows) == ran == ["lenet5", "stn"]
    ran.append("")
    assert shown.main([]) == 0 and ran[3:] == ["resnet20"]
    assert shown.main(["stn"]) == 0 and ran[4:] == ["stn"]
    assert pages == [["lenet5", "stn", "resnet20"]] * 2
    with pytest.raises(SystemExit):
        shown.main(["resnet21"])


def test_the_page_escapes_and_counts(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, network="<b>", accuracy=0.9, times=50.0)]
    html = classifiers_page.html(rows, dict.fromkeys(("lenet5", "<b>"), CURVES), Options(tmp_path))
    assert html.count("1 of 2") == 2 and "&lt;b&gt;" in html and "<b>:" not in html
