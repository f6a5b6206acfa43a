"""The networks that ``bench/networks.py`` measures, and each beside stock PyTorch: built, given the
same parameters and inputs, compared."""

import contextlib
import copy
import functools
import importlib
import math
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn

import pydl
from pydl import measure, models
from pydl.data.text import ALPHABET
from pydl.models.calls import Check
from pydl.models.stock import as_torch
from pydl.recipes.char_lm import STEPS_OF_TIME, STREAMS
from pydl.train import with_heads
from pydl.train.evaluation import own

MODES = ("inference", "training")
TORCHVISION = (
    "shufflenet_v2_x1_0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_y_400mf",
    "resnet18",
    "squeezenet1_0",
    "googlenet",
    "densenet121",
    "vgg11_bn",
)
# Which are measured where none are named.
USUAL = (
    "lenet5",
    "lenet5-1998",
    "alexnet",
    "alexnet-lecture",
    "alexnet-torchvision",
    "char-lm",
    *TORCHVISION,
)
# Those for pixels and clips, on inputs that one core learns from in a second or two: what they were
# made for takes many, and of what the tests compute with the innermost maps are a pixel or two.
DENSE: dict[str, tuple[int, ...]] = {
    "fcn8s": (3, 32, 32),  # to which it adds 100 pixels at each edge
    "deeplab_largefov": (3, 97, 97),
    "segnet": (3, 96, 128),
    "unet": (1, 188, 188),  # the smallest there is
    "c3d": (3, 8, 56, 56),
    "r3d_18": (3, 8, 56, 56),
}
# How far ours may be from the truth beyond four times PyTorch's own largest distance. In training,
# a rounding error decides which of two nearly equal pixels a pool takes, or on which side of ReLU's
# kink a value lies, and so where a whole gradient goes: PyTorch itself is off by up to 2 %. The
# kernels are held to tighter bounds one by one elsewhere; this finds a network that is wired or
# served wrongly.
TOLERANCE = {"inference": 1e-4, "training": 1e-2}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes
# What a model draws at random in training, in another order or from another generator than PyTorch.
_RANDOM = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "StochasticDepth")


@dataclass(frozen=True)
class Network:
    """A network to measure; ``build`` makes it, of pydl.nn's layers or of torch.nn's."""

    name: str
    source: str  # pydl or torchvision
    build: Callable[[], nn.Module]
    input: tuple[int, ...]  # of one image, clip or volume as Model has it; of a text: characters
    batch: int
    classes: int | None = None  # of the numbers that a text consists of; None: images
    target: tuple[int, ...] | None = None  # of a second text, as Model has it

    def random(self, batch: int) -> tuple[torch.Tensor, ...]:
        """So many images, or texts side by side."""
        row = models.Model(
            *(self.name, self.build, self.input, "", ""), tokens=self.classes, target=self.target
        )
        return row.inputs(batch)


class _Scores(nn.Module):
    """The scores of a network that reads or writes texts, one row for each symbol."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.model = build()

    def forward(self, *texts: torch.Tensor) -> torch.Tensor:
        return own(self.model(*texts)).flatten(0, -2)


def _torchvision() -> ModuleType | None:
    """torchvision's models, where it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return None
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        # Its own operators are built for one build of PyTorch, and beside another (the wheel of
        # PyPI beside PyTorch for CPUs) it cannot be imported for want of these two, which its
        # networks for classification never call.
        for name in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return importlib.import_module("torchvision.models")


def _build(model: models.Model) -> Callable[[], nn.Module]:
    if model.name == "c3d":  # whose first fully connected layer is made for one size
        _, frames, side, _ = DENSE["c3d"]
        return functools.partial(models.c3d, frames=frames, side=side)
    return model.build


def _of_texts(
    name: str,
    build: Callable[[], nn.Module],
    input: tuple[int, ...],
    batch: int,
    symbols: int,
    target: tuple[int, ...] | None = None,
) -> Network:
    return Network(name, "pydl", functools.partial(_Scores, build), input, batch, symbols, target)


def _batch(input: tuple[int, ...]) -> int:
    """How many images, clips or volumes at once, by the size of one."""
    if input[-1] <= 64:
        return 32
    return 16 if len(input) == 3 else 1


def networks() -> list[Network]:
    """All that there are here. Where torchvision is installed, one of its networks takes the place
    of ours of that name: made by others, it is the better stock."""
    found = []
    for model in models.MODELS.values():
        if model.tokens is not None:
            given = model.build, model.input, STREAMS, model.tokens, model.target
            found.append(_of_texts(model.name, *given))
            continue
        # What gives scores for each pixel takes as long for one image as a classifier for many.
        dense = model.task == "segmentation"
        size = model.sample if dense else model.input
        batch = 4 if dense else _batch(size)
        if model.name in DENSE:
            size, batch = DENSE[model.name], 1
        build = _build(model)
        if model.task == "reading":
            build = functools.partial(_Scores, build)
        found.append(Network(model.name, "pydl", build, size, batch))
    characters = len(ALPHABET)
    build_lm = functools.partial(models.CharLM, characters)
    found.append(_of_texts("char-lm", build_lm, (STEPS_OF_TIME,), STREAMS, characters))
    theirs = _torchvision()
    for name in TORCHVISION if theirs else ():
        # Without pretrained weights nothing is downloaded. GoogLeNet's own initial weights take
        # seconds, and it warns where nobody says whether they are wanted.
        more = {"init_weights": False} if name == "googlenet" else {}
        build = functools.partial(getattr(theirs, name), weights=None, **more)
        found.append(Network(name, "torchvision", build, (3, 224, 224), 8))
    return list({network.name: network for network in found}.values())


class Training(nn.Module):
    """A network and its loss: the mean cross entropy of its scores, and of auxiliary heads; the
    mean squared error of numbers that are no scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.loss = nn.CrossEntropyLoss()

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """Of what the network takes, and the target behind it."""
        *inputs, target = given
        if target.is_floating_point():
            return nn.functional.mse_loss(self.model(*inputs), target)
        return with_heads(self.loss)(self.model(*inputs), target)


@dataclass(frozen=True)
class Pair:
    """The two sides of one measurement, with the same parameters, and what both are given."""

    mode: str
    ours: nn.Module
    theirs: nn.Module
    inputs: tuple[torch.Tensor, ...]

    @classmethod
    def of(
        cls,
        network: Network,
        mode: str,
        layout: str,
        batch: int,
        device: str,
        fuse: bool = False,
    ) -> "Pair":
        """A network with fresh weights, of which a seed decides."""
        torch.manual_seed(0)
        model = network.build()
        inputs = network.random(batch)
        if mode == "training":
            with torch.no_grad():
                y = own(model.eval()(*inputs))
            target = torch.randint(y.shape[1], (len(y), *y.shape[2:]))
            if y.shape[1] == 1:
                target = torch.randn_like(y)
            model, inputs = Training(model), (*inputs, target)
        model = model.train(mode == "training").to(device)
        inputs = tuple(t.to(device) for t in inputs)
        if layout == "channels_last":
            for tensor in (*model.parameters(), inputs[0]):
                if tensor.ndim in _CHANNELS_LAST:
                    format = _CHANNELS_LAST[tensor.ndim]
                    tensor.data = tensor.contiguous(memory_format=format)
        theirs = as_torch(model)
        return cls(mode, pydl.accelerate(model, fuse=fuse), theirs, inputs)

    def action(self, model: nn.Module) -> measure.Action:
        """One pass of ours or theirs, ready to be timed."""
        if self.mode == "inference":
            return torch.inference_mode()(lambda: model(*self.inputs))
        parameters = list(_learned(model).values())
        return lambda: torch.autograd.grad(model(*self.inputs), parameters)

    def check(self) -> list[Check]:
        """Holds ours to stock PyTorch in float64: the output or, in training, the loss and the
        gradient of every parameter. The network draws nothing at random meanwhile."""
        exact = copy.deepcopy(self.theirs).double()
        doubles = tuple(t.double() if t.is_floating_point() else t for t in self.inputs)
        truth = _results(exact, doubles, self.mode)
        ours, theirs = (
            _errors(_results(model, self.inputs, self.mode).values(), truth.values())
            for model in (self.ours, self.theirs)
        )
        excused = max(filter(math.isfinite, theirs), default=0.0)
        bound = 4 * excused + TOLERANCE[self.mode]
        return [
            Check(name, mine, their, bound)
            for name, mine, their in zip(truth, ours, theirs, strict=True)
        ]


def _learned(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _results(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], mode: str
) -> dict[str, torch.Tensor]:
    """By what each is: the output, of several their names, or the loss and all gradients."""
    if mode == "inference":
        with torch.inference_mode():
            y = model(*inputs)
            return y if isinstance(y, dict) else {"output": y}
    with _nothing_random(model):
        loss = model(*inputs)
        learned = _learned(model)
        gradients = torch.autograd.grad(loss, list(learned.values()))
    of = (f"gradient of {name}" for name in learned)
    return {"loss": loss.detach(), **dict(zip(of, gradients, strict=True))}


@contextlib.contextmanager
def _nothing_random(model: nn.Module) -> Iterator[None]:
    layers = [one for one in model.modules() if type(one).__name__ in _RANDOM and one.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def _errors(found: Collection[torch.Tensor], truth: Collection[torch.Tensor]) -> list[float]:
    """By how much each differs from the truth, relative to the truth's own norm or a thousandth of
    the norm of all: before a batch normalisation a bias has a gradient of nothing but rounding
    errors."""
    whole = math.hypot(*(one.norm().item() for one in truth))
    return [
        ((one.double() - exact).norm() / exact.norm().clamp_min(1e-3 * whole)).item()
        for one, exact in zip(found, truth, strict=True)
    ]
