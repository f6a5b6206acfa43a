"""Forecasts: the series, what is learned from and measured on, and the baselines."""

import importlib.util
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pydl.data import CorruptFileError, series
from pydl.models.sequence.forecaster import Forecaster
from pydl.recipes import Options, find, forecast_elnino


def needs_statsmodels() -> None:
    """Its file alone: importing it takes seconds."""
    if importlib.util.find_spec("statsmodels") is None:
        pytest.skip("statsmodels, which has the series, is not installed")


def months(count: int) -> series.Series:
    """Each value is its own place."""
    return series.Series(torch.arange(count, dtype=torch.float32), 12, "months", "me", "none")


def test_el_nino_is_61_years_of_months() -> None:
    needs_statsmodels()
    found = series.el_nino()
    assert len(found.values) == 61 * 12 and found.period == 12
    assert found.values[:2].tolist() == pytest.approx([23.11, 24.2])
    by_month = found.values.view(-1, 12).mean(0)
    assert int(by_month.argmax()) in (1, 2) and by_month.max() - by_month.min() > 5


def test_a_column_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text('day,"sold, in all",left\n1,3.5,9\n2,4,8\n\n3,-1e2,7\n', encoding="utf-8")
    assert series.load(file, 7, "sold, in all").values.tolist() == [3.5, 4, -100]
    found = series.load(file, 7)
    assert found.values.tolist() == [9, 8, 7] and (found.unit, found.period) == ("left", 7)
    with pytest.raises(ValueError, match=r"no column is called 'sold' in .*; there are day, sold"):
        series.load(file, 7, "sold")
    file.write_text("a,b\n1,2\n3\n", encoding="utf-8")
    with pytest.raises(CorruptFileError, match=r"byte 8: expected a number in .* b, got '3'"):
        series.load(file, 7)


def test_nothing_that_is_forecast_is_learned() -> None:
    one = months(12 * 8)
    data = forecast_elnino.load(one, years=2)
    learned = 12 * 6
    # The mean of a month's places among those that were learned lies in the middle of these.
    assert data.usual[:13].tolist() == [*range(30, 42), 30] and len(data.usual) == len(one.values)

    def places(values: torch.Tensor, first: int) -> torch.Tensor:
        usual = data.usual.unfold(0, values.shape[1], 1)[first:][: len(values)]
        return (values * data.deviation + usual).round().long()

    past, future = places(data.train.tensors[0], 0), places(data.train.tensors[1], 36)
    assert past.shape[1:] == (36,) and future.shape[1:] == (12,)
    assert past[0].tolist() == list(range(36)) and future[0].tolist() == list(range(36, 48))
    assert future.max() == learned - 1
    past = places(data.held_out.tensors[0], learned - 36)
    future = places(data.held_out.tensors[1], learned)
    assert future.min() == learned and future.max() == 12 * 8 - 1 and len(future) == 13
    assert torch.equal(past[:, -1] + 1, future[:, 0])
    with pytest.raises(ValueError, match="expected at least 72 values, got 71"):
        forecast_elnino.load(months(71), years=2)


def test_baselines_are_what_they_are_called() -> None:
    data = forecast_elnino.load(months(12 * 8), years=2)
    truth = data.held_out.tensors[1]
    errors = {
        name: forecast_elnino.error(said, truth, data)
        for name, said in forecast_elnino.baselines(data).items()
    }
    torch.testing.assert_close(errors["seasonal naive"], torch.full((12,), 12.0))
    # Each month is as much beyond its mean as there are months from the middle of those learned.
    beyond = (truth * data.deviation).mean(0)
    torch.testing.assert_close(errors["climatology"], beyond)
    # The last month's own departure is that of the same calendar year, or of the year before.
    past, _ = data.held_out.tensors
    expected = ((past[:, -1:] - truth) * data.deviation).abs().mean(0)
    torch.testing.assert_close(errors["persistence"], expected)


def test_a_forecast_sees_all_that_came_before() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 30, requires_grad=True)
    said = Forecaster(5).eval()(values)
    assert said.shape == (3, 5)
    said[1].sum().backward()
    assert values.grad is not None and bool(values.grad[1].all())
    assert not values.grad[[0, 2]].any()


def test_the_recipe_leaves_a_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    needs_statsmodels()
    console = Console(file=io.StringIO(), width=120)
    find("forecast-elnino").run(Options(tmp_path, epochs=1), console)
    said = console.file.getvalue()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "732 months; 565 windows to learn from, 109 held out" in said
    for name in ("LSTM", *forecast_elnino.BASELINES):
        assert f"{name}: " in said and f"<td>{name}</td>" in page
    assert (tmp_path / "horizon.png").is_file() and (tmp_path / "forecasts.png").is_file()
