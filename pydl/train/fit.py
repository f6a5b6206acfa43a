"""Training by mini-batches: the only loop."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pydl import functional
from pydl.train import checkpoint as files
from pydl.train import distributed, schedules
from pydl.train.augment import Augmentation
from pydl.train.evaluation import Loss, autocast, evaluate, on, own
from pydl.train.log import Epoch, Log, Progress
from pydl.train.metrics import judged


@dataclass(frozen=True)
class Settings:
    """How :func:`fit` trains.

    Args:
        batch: examples of a batch and process, where the data are a dataset and not a loader.
        seed: of the order and the augmentation of the data. What the model draws itself, such as
            dropout, comes from PyTorch's own generator: ``torch.manual_seed``.
        rate, momentum, nesterov, weight_decay: of SGD, where no optimizer is given.
        label_smoothing: of cross entropy: how much of each target is spread over all classes.
        ignore_index: what has this target counts neither in cross entropy nor in accuracies.
        average: the decay of an exponential moving average of the weights, e.g. 0.999; it is what
            held-out data are evaluated with, and :attr:`History.average`.
        clip: the largest norm of all gradients together.
        accumulate: batches whose gradients are averaged for one step.
        autocast: bfloat16 or float16 (whose losses are then scaled).
        channels_last: whether the model and its images are laid out so.
        stop_below: training ends with the first epoch whose mean loss is below.
        checkpoint_every: steps between checkpoints; there is one after each epoch in any case.
    """

    batch: int = 32
    seed: int = 0
    rate: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    ignore_index: int = -100
    average: float | None = None
    clip: float | None = None
    accumulate: int = 1
    autocast: torch.dtype | None = None
    channels_last: bool = False
    stop_below: float | None = None
    checkpoint_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if self.average is not None and not 0 <= self.average < 1:
            raise ValueError(f"average is a decay in [0, 1), not {self.average}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is the largest norm of the gradients, not {self.clip}")


@dataclass(frozen=True)
class Step:
    """An update of the weights."""

    number: int  # from 1, over all epochs
    epoch: int  # from 1
    loss: float  # of this process's batches, before the update
    rate: float  # of the first parameter group


@dataclass(frozen=True)
class History:
    """What came of it: an entry an epoch, also of those before a resumption."""

    epochs: tuple[Epoch, ...]
    average: nn.Module | None  # the model with averaged weights, if any were kept


def fit(
    model: nn.Module,
    data: Dataset | DataLoader,
    *,
    epochs: int,
    held_out: Dataset | DataLoader | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: schedules.Schedule | None = None,
    loss: Loss = functional.cross_entropy,
    augment: Augmentation | None = None,
    settings: Settings | None = None,
    checkpoint: Path | str | None = None,
    logs: Sequence[Log] = (),
    on_step: Callable[[Step], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Trains ``model`` in place, on the device where it is.

    Under torchrun every process trains on its share of each step's data, and the gradients are
    averaged; the weights are the first process's. A batch is then a process's, so that two
    processes do what one does with batches twice as large.

    With a ``checkpoint`` that exists the run goes on where that was written, and ends with the bits
    that it would have had without an interruption: the order of the data is drawn again from the
    start of the epoch, and batches which were learned already are loaded and dropped. (Workers of a
    loader that outlive an epoch, ``persistent_workers``, must draw nothing for this to hold.)

    Args:
        model: from a batch's inputs to scores.
        data: of (inputs, target): a dataset, of which ``settings.batch`` are drawn at a time, each
            once an epoch; or a loader. A sampler in it without a generator gets one.
        epochs: times through the data.
        held_out: evaluated after every epoch; it decides nothing.
        optimizer: any, over the model's parameters; None for SGD.
        schedule: of the rate; None keeps it.
        loss: a mean over the batch, from scores and target.
        augment: what becomes of the images before each step, with a generator.
        settings: everything else.
        checkpoint: a file, written by the first process and read if it exists.
        logs: are told of every epoch, by the first process.
        on_step, on_epoch: called after every step or epoch.

    Raises:
        ValueError: there is nothing to do or nothing to learn from.
        CheckpointError: the checkpoint is damaged, foreign, or of another run.
        FloatingPointError: the loss is not finite; the weights are those before that step.
    """
    settings = settings or Settings()
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}")
    if settings.label_smoothing and loss is not functional.cross_entropy:
        raise ValueError("label_smoothing is for cross entropy; this loss has to do its own")
    if loss is functional.cross_entropy:
        loss = functools.partial(
            loss,
            label_smoothing=settings.label_smoothing,
            ignore_index=settings.ignore_index,
        )
    run = _Run(model, data, epochs, optimizer, schedule, loss, augment, settings)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        run.resume(path)
    first = distributed.rank() == 0
    with Progress(epochs * run.steps, shown=first) as progress:
        while run.epoch < epochs and not run.is_good_enough():
            for step in run.learn():
                progress.at(step.number, step.epoch, step.loss)
                if on_step is not None:
                    on_step(step)
                every = settings.checkpoint_every
                last = step.number % run.steps == 0  # the epoch's own follows
                if path is not None and every and step.number % every == 0 and not last:
                    run.save(path)
            epoch = run.finish_epoch(held_out)
            if first:
                for log in logs:
                    log.write(run.history)
            if path is not None:
                run.save(path)
            if on_epoch is not None:
                on_epoch(epoch)
    return History(tuple(run.history), None if run.average is None else run.average.module)


class _Run:
    """Everything that changes while training, and that a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset | DataLoader,
        epochs: int,
        optimizer: torch.optim.Optimizer | None,
        schedule: schedules.Schedule | None,
        loss: Loss,
        augment: Augmentation | None,
        settings: Settings,
    ) -> None:
        self.device = next(model.parameters()).device
        distributed.join(self.device)
        if distributed.processes() > 1:  # each draws its own dropout
            torch.manual_seed(torch.initial_seed() + distributed.rank())
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model, self.loss, self.augment, self.settings = model, loss, augment, settings
        self.loader, self.generators = _loader(data, settings)
        batches = _length(self.loader)
        self.steps = math.ceil(batches / settings.accumulate)  # of an epoch
        own = torch.Generator().manual_seed(settings.seed + 1 + distributed.rank())
        self.generator = own  # of the augmentation
        self.optimizer = optimizer or torch.optim.SGD(
            model.parameters(),
            settings.rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )
        self.schedule = (schedule or schedules.constant())(self.optimizer, epochs, self.steps)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=settings.autocast is torch.float16
        )
        self.parallel = DistributedDataParallel(model) if distributed.processes() > 1 else model
        self.average: AveragedModel | None = None
        if settings.average is not None:
            self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.average))
        self.epoch, self.batch = 0, 0  # how many are done, of the run and of the epoch
        self.sums = _no_sums()
        self.rate = 0.0  # of the last step
        self.history: list[Epoch] = []
        self.before: dict[str, Any] | None = None  # what the epoch began with
        self.now: dict[str, Any] | None = None  # what it goes on with after a resumption
        self.facts = {
            "epochs": epochs,
            "batches of an epoch": batches,
            "processes": distributed.processes(),
            "seed": settings.seed,
            "accumulated batches": settings.accumulate,
        }
        self.began = time.perf_counter()

    def is_good_enough(self) -> bool:
        """Whether the last epoch's loss is below the threshold."""
        threshold = self.settings.stop_below
        return threshold is not None and bool(self.history) and self.history[-1].loss < threshold

    def learn(self) -> Iterator[Step]:
        """Steps through the rest of an epoch."""
        self.model.train()
        if self.before is None:
            self.before = self._drawing()
        else:  # as the epoch began, so that the loader draws the same again
            files.set_random_state(self.before["random"], self.device)
            for generator, old in zip(self.generators, self.before["generators"], strict=True):
                generator.set_state(old)
        batches = iter(self.loader)
        for _ in range(self.batch):
            next(batches)
        if self.now is not None:
            files.set_random_state(self.now, self.device)
            self.now = None
        while group := list(islice(batches, self.settings.accumulate)):
            self.batch += len(group)
            self.rate = float(self.optimizer.param_groups[0]["lr"])
            loss = self._step([self._prepared(*batch) for batch in group])
            number = self.epoch * self.steps + math.ceil(self.batch / self.settings.accumulate)
            yield Step(number, self.epoch + 1, loss, self.rate)

    def _prepared(self, inputs: Any, target: Any) -> tuple[Any, Any]:
        inputs = on(inputs, self.device)
        if self.augment is not None:
            inputs = self.augment(inputs, self.generator)
        return on(inputs, self.device, self.settings.channels_last), on(target, self.device)

    def _step(self, group: list[tuple[Any, Any]]) -> float:
        evaluated: list[float] = []

        def closure() -> float:
            self.optimizer.zero_grad()
            mean = sum(
                self._gradients(
                    inputs, target, len(group), last=i == len(group), count=not evaluated
                )
                for i, (inputs, target) in enumerate(group, 1)
            ) / len(group)
            if self.settings.clip is not None:
                self.scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            evaluated.append(mean)
            return mean

        if isinstance(self.optimizer, torch.optim.LBFGS):  # it asks for gradients several times
            self.optimizer.step(closure)
        else:
            closure()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return evaluated[0]

    def _gradients(self, inputs: Any, target: Any, parts: int, last: bool, count: bool) -> float:
        """Adds a batch's part of the gradients; processes exchange them with the last one."""
        alone: contextlib.AbstractContextManager = contextlib.nullcontext()
        if isinstance(self.parallel, DistributedDataParallel) and not last:
            alone = self.parallel.no_sync()
        with alone:
            with autocast(self.settings.autocast, self.device):
                scores = self.parallel(inputs)
                loss = self.loss(scores, target)
            value = loss.item()
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value} in epoch {self.epoch + 1}, batch {self.batch}: a lower "
                    "rate, warm-up or clipped gradients may help, or the data hold such numbers"
                )
            self.scaler.scale(loss / parts).backward()
        if count:
            self.sums["loss"] += value * len(target)
            self.sums["examples"] += len(target)
            scores = own(scores)
            if judged(scores, target):
                counted = (target >= 0) & (target != self.settings.ignore_index)
                self.sums["right"] += ((scores.argmax(1) == target) & counted).sum().item()
                self.sums["judged"] += counted.sum().item()
        return value

    def finish_epoch(self, held_out: Dataset | DataLoader | None) -> Epoch:
        """Evaluates, and begins the next."""
        sums = distributed.total(list(self.sums.values()), self.device)
        loss, examples, right, judged_ones = sums
        found = None
        if held_out is not None:
            found = evaluate(
                self.model if self.average is None else self.average.module,
                held_out,
                loss=self.loss,
                dtype=self.settings.autocast,
                channels_last=self.settings.channels_last,
                ignore_index=self.settings.ignore_index,
            )
        self.history.append(
            Epoch(
                self.epoch + 1,
                loss / examples,
                right / judged_ones if judged_ones else None,
                None if found is None else found.loss,
                None if found is None else found.accuracy,
                self.rate,
                time.perf_counter() - self.began,
            )
        )
        self.epoch, self.batch, self.sums, self.before = self.epoch + 1, 0, _no_sums(), None
        return self.history[-1]

    def save(self, path: Path) -> None:
        """Writes a checkpoint; each process has a part of its own in it."""
        own = {
            "before": self.before or self._drawing(),
            "now": files.random_state(self.device),
            "augmentation": self.generator.get_state(),
            "sums": self.sums,
        }
        everyone = distributed.gathered(own)
        if distributed.rank() != 0:
            return
        state = {
            "facts": self.facts,
            "epoch": self.epoch,
            "batch": self.batch,
            "history": [asdict(epoch) for epoch in self.history],
            "processes": everyone,
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        files.write(state, path)

    def resume(self, path: Path) -> None:
        """Goes back to where a checkpoint was written, if there is one."""
        content = distributed.content(path, self.device)
        if content is None:
            return
        state = files.parse(content, path)
        for name, here in self.facts.items():
            there = state["facts"].get(name)
            if there != here:
                raise files.CheckpointError(
                    f"{path} is of another run: {name} {there} there and {here} here"
                )
        if (state["average"] is None) != (self.average is None):
            raise files.CheckpointError(f"{path} is of another run: only one of them averages")
        try:
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, LookupError) as error:
            reason = " ".join(str(error).split())
            raise files.CheckpointError(
                f"{path} is of another model or optimizer: {reason}"
            ) from error
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        own = state["processes"][distributed.rank()]
        self.sums = own["sums"]
        self.generator.set_state(own["augmentation"])
        # Set where the epoch goes on, and not before: an import on the way there may draw.
        self.before = own["before"]
        self.now = own["now"] if self.batch else None

    def _drawing(self) -> dict[str, Any]:
        """The states of whatever a loader may draw from."""
        return {
            "random": files.random_state(self.device),
            "generators": [generator.get_state() for generator in self.generators],
        }


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "examples": 0, "right": 0, "judged": 0}


def _loader(
    data: Dataset | DataLoader, settings: Settings
) -> tuple[DataLoader, list[torch.Generator]]:
    """This process's loader, and what the order of the data is drawn from."""
    if isinstance(data, DataLoader):
        loader = data
    elif isinstance(data, IterableDataset):
        loader = DataLoader(data, settings.batch)
    else:
        if not len(data):  # type: ignore[arg-type]
            raise ValueError("there is nothing to learn from: the data are empty")
        order = torch.Generator().manual_seed(settings.seed)
        loader = DataLoader(data, settings.batch, shuffle=True, generator=order)
    samplers = [
        loader.sampler,
        loader.batch_sampler,
        getattr(loader.batch_sampler, "sampler", None),
    ]
    for sampler in samplers:
        if getattr(sampler, "generator", 0) is None:
            # Its order would be drawn from PyTorch's generator, of which each process has its own.
            sampler.generator = torch.Generator().manual_seed(settings.seed)  # type: ignore
    generators: list[torch.Generator] = []
    for owner in (loader, *samplers):
        generator = getattr(owner, "generator", None)
        if generator is not None and not any(generator is one for one in generators):
            generators.append(generator)
    return distributed.sharded(loader, even=True), generators


def _length(loader: DataLoader) -> int:
    try:
        batches = len(loader)
    except TypeError as error:
        raise TypeError("the data have no length, which the schedule of the rate needs") from error
    if not batches:
        raise ValueError("there is nothing to learn from: the data are empty")
    return batches
