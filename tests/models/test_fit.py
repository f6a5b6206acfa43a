"""The training loop on a tiny network: against loops written out, and what it refuses."""

import copy
import csv
import math
import sys
import types
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pydl import functional, nn
from pydl.train import (
    Confusion,
    Csv,
    Settings,
    Step,
    TensorBoard,
    evaluate,
    fit,
    schedules,
)


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).to(dtype)


def images(count: int = 20, dtype: torch.dtype = torch.float64) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 3, 8, 8, generator=generator, dtype=dtype)
    return TensorDataset(x, torch.randint(5, (count,), generator=generator))


def in_turn(count: int = 20, batch: int = 4) -> DataLoader:
    return DataLoader(images(count), batch)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def written_out(model, batches, epochs, optimizer, clip=None, smoothing=0.0, decay=None):
    """The same training with PyTorch alone; also the averaged weights."""
    average = None
    for _ in range(epochs):
        for group in batches:
            optimizer.zero_grad()
            for x, target in group:
                loss = torch.nn.functional.cross_entropy(
                    model(x), target, label_smoothing=smoothing
                )
                (loss / len(group)).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            now = weights(model)
            if decay is not None:
                average = now if average is None else decay * average + (1 - decay) * now
    return average


def test_it_is_the_loop_written_out() -> None:
    ours, theirs = network(), network()
    settings = Settings(
        rate=0.05, clip=0.5, accumulate=2, label_smoothing=0.1, average=0.9, nesterov=True
    )
    history = fit(ours, in_turn(), epochs=2, settings=settings)
    batches = list(in_turn())
    groups = [batches[0:2], batches[2:4], batches[4:]]
    optimizer = torch.optim.SGD(
        theirs.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    average = written_out(theirs, groups, 2, optimizer, clip=0.5, smoothing=0.1, decay=0.9)
    torch.testing.assert_close(weights(ours), weights(theirs))
    assert history.average is not None
    torch.testing.assert_close(weights(history.average), average)


@pytest.mark.parametrize("name", ["Adam", "RMSprop", "Adagrad", "Adadelta", "AdamW"])
def test_any_optimizer(name: str) -> None:
    ours, theirs = network(), network()
    fit(ours, in_turn(), epochs=1, optimizer=getattr(torch.optim, name)(ours.parameters()))
    optimizer = getattr(torch.optim, name)(theirs.parameters())
    written_out(theirs, [[batch] for batch in in_turn()], 1, optimizer)
    torch.testing.assert_close(weights(ours), weights(theirs))


def test_an_optimizer_that_evaluates_several_times_a_step() -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    history = fit(model, in_turn(batch=20), epochs=3, optimizer=optimizer)
    losses = [epoch.loss for epoch in history.epochs]
    assert losses == sorted(losses, reverse=True)


def test_what_is_told_of_epochs_and_steps() -> None:
    model, steps, epochs = network(), [], []
    history = fit(
        model,
        images(18),
        epochs=2,
        held_out=images(7),
        settings=Settings(batch=4),
        on_step=steps.append,
        on_epoch=epochs.append,
    )
    assert [step.number for step in steps] == list(range(1, 11))
    assert isinstance(steps[0], Step) and steps[-1].epoch == 2
    assert history.epochs == tuple(epochs)
    sizes = [4, 4, 4, 4, 2]
    mean = sum(step.loss * n for step, n in zip(steps[5:], sizes, strict=True)) / 18
    assert epochs[1].loss == pytest.approx(mean)
    found = evaluate(model, images(7))
    assert epochs[1].held_out_loss == found.loss
    x, target = images(7).tensors
    assert epochs[1].held_out_accuracy == found.accuracy
    assert found.accuracy == pytest.approx((model(x).argmax(1) == target).double().mean().item())
    assert model.training


def test_it_stops_below_a_loss_and_repeats_by_its_seed() -> None:
    settings = Settings(rate=0.1, batch=4, stop_below=1.5)
    runs = [network(), network()]
    histories = [fit(model, images(), epochs=200, settings=settings) for model in runs]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    losses = [epoch.loss for epoch in histories[0].epochs]
    assert len(losses) < 200 and losses[-1] < 1.5 <= min(losses[:-1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_channels_last(dtype: torch.dtype) -> None:
    data = images(dtype=torch.float32)
    ours, exact = network(torch.float32), network(torch.float32)
    seen = []
    ours[0].register_forward_hook(lambda layer, x, y: seen.append((x[0], y)))
    fit(ours, data, epochs=2, settings=Settings(autocast=dtype, channels_last=True))
    fit(exact, data, epochs=2)
    x, y = seen[0]
    assert x.is_contiguous(memory_format=torch.channels_last) and y.dtype == dtype
    assert ours[0].weight.dtype == torch.float32
    torch.testing.assert_close(weights(ours), weights(exact), rtol=0.05, atol=2e-3)


def test_another_loss_and_a_loader_of_whole_batches() -> None:
    x, target = images().tensors
    regression = torch.nn.functional.one_hot(target, 5).double()
    loader = DataLoader(TensorDataset(x.split(4)[0][None], regression[None, :4]), batch_size=None)
    history = fit(network(), loader, epochs=2, loss=torch.nn.functional.mse_loss, held_out=loader)
    last = history.epochs[-1]
    assert last.loss < history.epochs[0].loss
    assert last.accuracy is None and last.held_out_accuracy is None
    assert last.held_out_loss is not None


RATES = [
    pytest.param(schedules.constant(), [1.0] * 8, id="constant"),
    pytest.param(schedules.step(1, 0.5), [1.0] * 4 + [0.5] * 4, id="step"),
    pytest.param(
        schedules.cosine(warm_up=0.25),
        [0.5, 1.0, *[(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]],
        id="cosine",
    ),
    pytest.param(
        schedules.slanted_triangle(rising=0.25, ratio=4),
        [(1 + 3 * h) / 4 for h in (0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)],
        id="slanted triangle",
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), RATES)
def test_rates(schedule: schedules.Schedule, expected: list[float]) -> None:
    steps: list[Step] = []
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    fit(model, in_turn(16), epochs=2, optimizer=optimizer, schedule=schedule, on_step=steps.append)
    assert [step.rate for step in steps] == pytest.approx(expected)


def test_one_cycle() -> None:
    steps: list[Step] = []
    fit(
        network(),
        in_turn(),
        epochs=4,
        settings=Settings(rate=0.1),
        schedule=schedules.one_cycle(0.25),
        on_step=steps.append,
    )
    rates = [step.rate for step in steps]
    assert rates[0] == pytest.approx(0.1 / 25) and max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 4 and rates[-1] < 1e-5


def test_the_confusion_matrix() -> None:
    confusion = Confusion(3)
    target = torch.tensor([[0, 0, 1], [1, 2, -100]])
    read = torch.tensor([[0, 1, 1], [1, 0, 2]])
    confusion.update(torch.nn.functional.one_hot(read, 3).movedim(2, 1), target)
    assert confusion.matrix.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert confusion.accuracy == pytest.approx(3 / 5)
    assert confusion.recall.tolist() == pytest.approx([1 / 2, 1, 0])
    assert confusion.jaccard.tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            told.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, step))

        def flush(self) -> None:
            pass

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    logs = (Csv(tmp_path / "new" / "log.csv"), TensorBoard(tmp_path))
    history = fit(network(), images(), epochs=2, logs=logs)
    with open(tmp_path / "new" / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [epoch.loss for epoch in history.epochs]
    assert rows[0]["held_out_loss"] == "" and rows[1]["number"] == "2"
    assert told[0] == (str(tmp_path), 1)
    assert told[1:] == [(k, n) for n in (1, 2) for k in ("loss", "accuracy", "rate", "seconds")]

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"tensorboard is missing: pip install"):
        TensorBoard(tmp_path)


class Endless(IterableDataset):
    def __iter__(self):
        return iter(images())


def test_what_it_refuses() -> None:
    model = network()
    for data in (images(0), DataLoader(images(0))):
        with pytest.raises(ValueError, match="nothing to learn from"):
            fit(model, data, epochs=1)
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(model, DataLoader(images(3), 4, drop_last=True), epochs=1)
    with pytest.raises(TypeError, match="no length"):
        fit(model, Endless(), epochs=1)
    with pytest.raises(ValueError, match="epochs must be at least 1, not 0"):
        fit(model, images(), epochs=0)
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        fit(model, images(), epochs=1, held_out=images(0))
    with pytest.raises(ValueError, match="label_smoothing is for cross entropy"):
        fit(
            model,
            images(),
            epochs=1,
            loss=torch.nn.functional.mse_loss,
            settings=Settings(label_smoothing=0.1),
        )
    for wrong in ({"batch": 0}, {"accumulate": 0}, {"average": 1.0}, {"clip": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)
    for make in (schedules.cosine, schedules.one_cycle, schedules.slanted_triangle):
        with pytest.raises(ValueError, match="a part of all steps"):
            make(1.5)
    with pytest.raises(ValueError, match="at least one epoch"):
        schedules.step(0)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    x, target = images().tensors
    x = x.clone()
    x[9] = math.nan
    model = network()
    healthy = copy.deepcopy(model)
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1, batch 3"):
        fit(model, DataLoader(TensorDataset(x, target), 4), epochs=1)
    fit(healthy, DataLoader(TensorDataset(x[:8], target[:8]), 4), epochs=1)
    assert torch.equal(weights(model), weights(healthy))


def test_the_loss_is_this_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        called.append(len(target))
        return functional.cross_entropy(scores, target)

    ours, same = network(), network()
    fit(ours, in_turn(), epochs=1)
    fit(same, in_turn(), epochs=1, loss=loss)
    assert torch.equal(weights(ours), weights(same)) and called == [4] * 5
