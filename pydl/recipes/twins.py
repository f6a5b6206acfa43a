"""A network of the table beside its twin, the same network made of torch.nn's layers: both trained
alike, then timed in turns."""

import contextlib
import copy
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pydl import functional, measure, models
from pydl.asked import use_backend
from pydl.data import Split
from pydl.data.fitted import Fitted
from pydl.models.stock import as_torch
from pydl.nn.dropout import Dropout
from pydl.recipes.classifiers_file import FIRST, Curves, Row, errors, times
from pydl.recipes.digits import DISTORTION
from pydl.recipes.recipe import Options
from pydl.train import History, Settings, Step, fit, schedules, with_heads
from pydl.visualize import shares

BATCH = 32
SECONDS = 20.0  # of timing the steps of a network and its twin, about


@dataclass(frozen=True)
class Plan:
    """How a network of the table is trained.

    Adam is for the deep networks without batch normalisation, whose first gradients are small: of
    the median weight's norm 0.3 to 1.3 %, where those of LeNet-5 are 2 % and with batch
    normalisation 4 % and more; and for EfficientNet, whose authors took RMSProp, which scales a
    step by the size of its gradients likewise.
    """

    network: str
    pixels: int  # height and width of the images
    epochs: int
    rate: float  # the highest
    adam: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)  # of its builder

    def build(self, classes: int) -> nn.Module:
        """The network with fresh weights."""
        return models.find(self.network).for_classes(classes, **self.options)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height, width."""
        return models.find(self.network).input[0], self.pixels, self.pixels

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Over all weights of the model."""
        if self.adam:
            return torch.optim.AdamW(model.parameters(), self.rate, fused=True)
        return torch.optim.SGD(
            model.parameters(),
            self.rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            fused=True,
        )


@dataclass(frozen=True)
class Trained:
    """What came of one of the two."""

    losses: tuple[float, ...]  # by step
    accuracy: float  # of the held-out images
    seconds: float  # of the processor


def loaded(plan: Plan, data: Dataset, seed: int | None) -> DataLoader:
    """Batches of images as the network takes them, in an order of which ``seed`` decides."""
    order = None if seed is None else torch.Generator().manual_seed(seed)
    fitted = Fitted(plan.shape)
    return DataLoader(data, BATCH, shuffle=order is not None, generator=order, collate_fn=fitted)


def train(
    plan: Plan,
    model: nn.Module,
    split: Split,
    epochs: int,
    seed: int,
    on_step: Callable[[Step], None],
) -> History:
    """Trains ``model`` in place by the plan."""
    torch.manual_seed(seed)  # of dropout
    return fit(
        model,
        loaded(plan, split.train, seed),
        epochs=epochs,
        held_out=loaded(plan, split.held_out, None),
        optimizer=plan.optimizer(model),
        schedule=schedules.one_cycle(warm_up=0.2),
        loss=with_heads(functional.cross_entropy),
        augment=DISTORTION,
        settings=Settings(seed=seed),
        on_step=on_step,
    )


def learn(plan: Plan, model: nn.Module, split: Split, epochs: int, seed: int) -> Trained:
    """Trains ``model`` in place to the end."""
    losses: list[float] = []
    began = time.process_time()
    history = train(plan, model, split, epochs, seed, lambda step: losses.append(step.loss))
    accuracy = history.epochs[-1].held_out_accuracy or 0.0
    return Trained(tuple(losses), accuracy, time.process_time() - began)


class _Enough(Exception):
    """Ends a training that is about its first steps only."""


class _Exact(nn.Module):
    """A copy of a network in float64, which takes images as they are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).double()

    def forward(self, images: torch.Tensor) -> Any:
        return self.model(images.double())


def exact_losses(plan: Plan, model: nn.Module, split: Split, epochs: int, seed: int) -> list[float]:
    """The first losses of the same training in float64; ``model`` is left as it is."""
    losses: list[float] = []

    def on_step(step: Step) -> None:
        losses.append(step.loss)
        if step.number == FIRST:
            raise _Enough

    with contextlib.suppress(_Enough):
        train(plan, _Exact(model), split, epochs, seed, on_step)
    return losses


@contextlib.contextmanager
def masks_of_pytorch(model: nn.Module) -> Iterator[None]:
    """Dropout is PyTorch's inside the ``with`` block: for a seed these kernels draw another mask,
    and a model would lose other units than its twin."""
    layers = [layer for layer in model.modules() if isinstance(layer, Dropout)]
    before = [layer.backend for layer in layers]
    for layer in layers:
        layer.backend = "aten"
    try:
        yield
    finally:
        for layer, name in zip(layers, before, strict=True):
            layer.backend = name


def stepper(plan: Plan, model: nn.Module, batch: Sequence[torch.Tensor], backend: str) -> Callable:
    """A step of training, ready to be timed; the rate is 0, so that the weights stay."""
    images, labels = batch
    optimizer = plan.optimizer(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    loss = with_heads(functional.cross_entropy)

    def step() -> None:
        with use_backend(backend):
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()

    model.train()
    return step


def beside_its_twin(
    plan: Plan, split: Split, options: Options, baseline: float, facts: Mapping[str, str]
) -> tuple[Row, Curves]:
    """Trains the network of ``plan`` and its twin, then times both.

    Args:
        plan: how.
        split: the digits.
        options: seed and backend; epochs, if not as the plan says.
        baseline: the accuracy of a linear classifier.
        facts: what the figures depend on.
    """
    epochs = options.epochs or plan.epochs
    torch.manual_seed(options.seed)
    ours = plan.build(len(split.classes))
    twin = as_torch(copy.deepcopy(ours))
    with use_backend(options.backend), masks_of_pytorch(ours):
        mine = learn(plan, ours, split, epochs, options.seed)
    with use_backend("aten"):
        exact = exact_losses(plan, twin, split, epochs, options.seed)
        theirs = learn(plan, twin, split, epochs, options.seed)
    off, twins_off = (errors(one.losses, exact) for one in (mine, theirs))
    batch = next(iter(loaded(plan, split.train, 0)))
    steps = {
        "ours": stepper(plan, ours, batch, options.backend),
        "twin": stepper(plan, twin, batch, "aten"),
    }
    # With one thread the processor's time is the step's, whatever else the machine does meanwhile.
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = measure.interleave(steps, seconds=SECONDS, rounds=(7, 100), clock=clock)
    load = os.getloadavg()[0]
    served = shares.of_families(steps["ours"])
    row = Row(
        network=plan.network,
        pixels=plan.pixels,
        epochs=epochs,
        steps=len(mine.losses),
        seed=options.seed,
        backend=options.backend,
        accuracy=mine.accuracy,
        accuracy_twin=theirs.accuracy,
        accuracy_baseline=baseline,
        error=max(off),
        error_twin=max(twins_off),
        times=times(off, twins_off),
        seconds=mine.seconds,
        seconds_twin=theirs.seconds,
        step_ms=1e3 * taken["ours"].median,
        step_ms_twin=1e3 * taken["twin"].median,
        samples=taken["ours"].samples,
        load=load,
        share=shares.together(served),
        served=", ".join(map(str, served)),
        facts=facts,
    )
    return row, Curves(mine.losses, theirs.losses)
