"""An LSTM forecasts the temperature of the sea off Peru, a year ahead, in each month of ten years
that it has not seen.

It reads and forecasts by how much a month is warmer or colder than usual, and is held to who says
that it will be as the same month a year ago (seasonal naive), as usual (climatology), or as much
warmer or colder than usual as the last month was (persistence).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import measure, nn
from pydl.asked import use_backend
from pydl.data import series
from pydl.models.sequence.forecaster import Forecaster
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Epoch, Settings, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

YEARS = 10  # held out
PAST = 3  # periods that the network reads
EPOCHS = 20  # of 5, 10 and 20 the best for the ten years before, which were then held out
BASELINES = ("seasonal naive", "climatology", "persistence")


@dataclass(frozen=True)
class Data:
    """Windows of a series: what came before (N, T), and the period that followed (N, period), both
    less what is usual at that place of the period and over the deviation from it."""

    train: TensorDataset
    held_out: TensorDataset
    usual: torch.Tensor  # [N], of each value of the series, the mean of those that were learned
    deviation: float


def load(one: series.Series, years: int) -> Data:
    """The windows that end in the last so many periods are held out; what these are to forecast is
    in no window to learn from."""
    period, kept = one.period, years * one.period
    learned = one.values[:-kept]
    past = PAST * period
    if len(learned) < past + period:
        raise ValueError(f"expected at least {past + period + kept} values, got {len(one.values)}")
    means = torch.stack([learned[place::period].mean() for place in range(period)])
    usual = means[torch.arange(len(one.values)) % period]
    deviation = (learned - usual[: len(learned)]).std().item()
    windows = ((one.values - usual) / deviation).unfold(0, past + period, 1)  # [N, past + period]
    train = len(learned) - past - period + 1

    def split(some: torch.Tensor) -> TensorDataset:
        return TensorDataset(some[:, :past].contiguous(), some[:, past:].contiguous())

    held_out = windows[train + period - 1 :]
    return Data(split(windows[:train]), split(held_out), usual, deviation)


def baselines(data: Data) -> dict[str, torch.Tensor]:
    """What each says of the held-out windows, (N, period), as the data have it."""
    past, truth = data.held_out.tensors
    period = truth.shape[1]
    said = past[:, -period:], torch.zeros_like(truth), past[:, -1:].expand(-1, period)
    return dict(zip(BASELINES, said, strict=True))


def error(said: torch.Tensor, truth: torch.Tensor, data: Data) -> torch.Tensor:
    """The mean absolute error, in the series' unit, by how far ahead it was: (period,)."""
    return (said - truth).abs().mean(0) * data.deviation


def train(model: nn.Module, data: Data, *, epochs: int, seed: int) -> Sequence[Epoch]:
    """AdamW, a rate that rises to 0.005 and falls to 0, on the mean absolute error."""
    return fit(
        model,
        data.train,
        epochs=epochs,
        held_out=data.held_out,
        optimizer=torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=1e-2),
        schedule=schedules.cosine(warm_up=0.1),
        loss=nn.functional.l1_loss,
        settings=Settings(batch=64, seed=seed, clip=1.0),
    ).epochs


def _steps(options: Options, console: "Console") -> bool:
    one = series.el_nino()
    data = load(one, YEARS)
    console.print(
        f"{len(one.values)} months; {len(data.train)} windows to learn from, {len(data.held_out)} "
        "held out",
        soft_wrap=True,
    )
    torch.manual_seed(options.seed)
    model = Forecaster(one.period).to(options.device)
    past, truth = data.held_out.tensors
    with use_backend(options.backend):
        epochs = train(model, data, epochs=options.epochs or EPOCHS, seed=options.seed)
        with torch.no_grad():
            said = {"LSTM": model.eval()(past.to(options.device)).cpu(), **baselines(data)}
        errors = {name: error(found, truth, data) for name, found in said.items()}
        html = _html(options, one, data, model, epochs, said, errors)
    for name, found in errors.items():
        console.print(
            f"{name}: {found.mean():.3f} {one.unit} off in the mean, {found[0]:.3f} a month ahead",
            soft_wrap=True,
        )
    publish(html, options, console)
    return bool(errors["LSTM"].mean() < errors["seasonal naive"].mean())


def _html(
    options: Options,
    one: series.Series,
    data: Data,
    model: nn.Module,
    epochs: Sequence[Epoch],
    said: Mapping[str, torch.Tensor],
    errors: Mapping[str, torch.Tensor],
) -> str:
    from pydl.visualize import page, plots, shares
    from pydl.visualize.curves import curves

    device = torch.device(options.device)
    past, truth = data.held_out.tensors
    album = plots.Album(options.output)
    lead = f"""An LSTM read {len(data.train):,} times {past.shape[1]} months and what came in the
        year behind them, and then forecast each year of the last {YEARS}. The series:
        {escape(one.source)} ({escape(one.licence)})."""
    by_horizon = {
        name: [(ahead, found[ahead - 1].item()) for ahead in range(1, one.period + 1)]
        for name, found in errors.items()
    }
    title = f"Mean absolute error by months ahead ({one.unit})"
    far = album("horizon", curves, title, "months ahead", by_horizon)
    first = len(one.values) - len(truth) - (one.period - 1)  # month of the first forecast
    start = 1950 + (first + 2) / one.period
    usual = data.usual[first + 2 :][: len(truth)]
    shown = {
        name: [
            (start + month / one.period, value)
            for month, value in enumerate((found[:, 2] * data.deviation + usual).tolist())
        ]
        for name, found in (("measured", truth), ("LSTM", said["LSTM"]))
    }
    what = f"Three months ahead ({one.unit})"
    ahead = album("forecasts", curves, what, "year", shown)
    better = errors["LSTM"].mean() < errors["seasonal naive"].mean()
    rows = [
        [name, *(f"{found[months - 1]:.3f}" for months in (1, 3, 6, 12)), f"{found.mean():.3f}"]
        for name, found in errors.items()
    ]
    parts = [
        page.tiles(
            [
                (
                    f"{errors['LSTM'].mean():.2f} {one.unit}",
                    f"mean absolute error of the LSTM over {len(truth)} forecasts of a year",
                    bool(better),
                ),
                *(
                    (f"{errors[name].mean():.2f} {one.unit}", f"by {name}", True)
                    for name in BASELINES
                ),
                (f"{epochs[-1].seconds:.0f} s", "of training", True),
            ]
        ),
        page.section(
            "How far off",
            page.paragraph("""
                Forecasts from every month of the held-out years. <i>Seasonal naive</i>: as the same
                month a year ago. <i>Climatology</i>: as the same month in the mean of the years
                that were learned. <i>Persistence</i>: as much warmer or colder than that as the
                last month was."""),
            page.picture(far, title),
            page.table(
                ["", *(f"{months} ahead" for months in (1, 3, 6, 12)), "mean"],
                rows,
                numbers=(1, 2, 3, 4, 5),
            ),
        ),
        page.section("Forecasts", page.picture(ahead, what)),
        page.where_time_goes(
            shares.of_layers(model.eval(), past.to(device)), f"{len(past)} forecasts"
        ),
    ]
    return page.page("How warm will the sea be?", lead, parts, measure.versions(device))


RECIPE = Recipe(
    "forecast-elnino",
    "an LSTM forecasts ten held-out years of sea temperatures, a year ahead, better than the year "
    "before does",
    ("statsmodels", "matplotlib"),
    _steps,
)
