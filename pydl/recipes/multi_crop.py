"""Multi-crop testing: what a network says of several windows of an image is averaged.

AlexNet learned from random windows of 224 pixels of images of 256, mirrored half of the time, and
was tested on ten windows: the corners, the centre, and these of the mirrored image (Krizhevsky,
Sutskever, Hinton 2012). Here LeNet-5 learns from random windows of 32 pixels of pictures of 40 with
a real digit somewhere in them. It does so twice, with and without mirrored windows, for whether a
mirror image helps in testing depends on that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import TensorDataset

from pydl import models, nn
from pydl.asked import use_backend
from pydl.data import scenes
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Settings, augment, crops, fit, schedules

if TYPE_CHECKING:
    from rich.console import Console

WINDOW, PICTURE = (32, 32), 40
EXAMPLES, TESTS = 3000, 1000
EPOCHS = 20
SCALES = (0.9, 1.0, 1.1)
TRAININGS = {"without mirrored windows": False, "with mirrored windows": True}

# The windows of one scale, and the scales.
WAYS: dict[str, tuple[crops.Crops, tuple[float, ...]]] = {
    "centre": (crops.centre_crop, (1.0,)),
    "centre, mirrored too": (crops.mirrored(crops.centre_crop), (1.0,)),
    "corners and centre": (crops.five_crop, (1.0,)),
    "corners and centre, mirrored too": (crops.ten_crop, (1.0,)),
    "centre at three scales": (crops.centre_crop, SCALES),
    "corners and centre at three scales": (crops.five_crop, SCALES),
    "all of these": (crops.ten_crop, SCALES),
}
ONE, _, FIVE, TEN, _, SCALED, _ = WAYS


@dataclass(frozen=True)
class Result:
    """One way of testing one network."""

    windows: int  # of a picture
    probabilities: torch.Tensor  # [N, 10], their mean
    right: torch.Tensor  # [N], whether the most probable digit is the one that was written

    @property
    def error(self) -> float:
        """The part of the pictures that is read wrong."""
        return 1 - self.right.float().mean().item()


@dataclass(frozen=True)
class Found:
    """What came of a run: by the training, then by the way of testing."""

    results: Mapping[str, Mapping[str, Result]]
    network: nn.Module  # trained without mirrored windows
    tests: TensorDataset  # pictures in 0 ... 1, labels
    scaling: tuple[float, float]  # mean and deviation that the network's pictures were scaled by

    @property
    def plain(self) -> Mapping[str, Result]:
        """Of the network that saw no mirrored windows."""
        return next(iter(self.results.values()))


def pictures(count: int, seed: int, *, held_out: bool) -> TensorDataset:
    """Pictures [N, 1, 40, 40] in 0 ... 1 of a digit each, moved, scaled and turned, and labels."""
    made = scenes.distorted(
        count, PICTURE, seed=seed, held_out=held_out, scale=(0.4, 0.7), angle=15, clutter=2
    )
    return TensorDataset(made.images, made.labels)


def learn(model: nn.Module, data: TensorDataset, epochs: int, seed: int, *, mirrored: bool) -> None:
    """SGD with a rate that falls to 0, on random windows, half of them mirrored if so asked."""
    window = augment.Crop(WINDOW)
    fit(
        model,
        data,
        epochs=epochs,
        schedule=schedules.cosine(warm_up=0.1),
        augment=augment.Compose(window, augment.HorizontalFlip()) if mirrored else window,
        settings=Settings(batch=32, seed=seed, rate=0.02),
    )


def tested(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Result]:
    """Each way of testing the model on pictures [N, 1, H, W]."""
    results = {}
    for name, (windows, scales) in WAYS.items():
        parts = torch.cat([windows(one, WINDOW) for one in crops.scaled(images, scales)])
        probabilities = crops.averaged(model, parts).cpu()
        results[name] = Result(len(parts), probabilities, probabilities.argmax(1) == labels)
    return results


def compare(options: Options, console: "Console") -> Found:
    """Trains both networks and tests each in every way."""
    train = pictures(EXAMPLES, options.seed, held_out=False)
    tests = pictures(TESTS, options.seed, held_out=True)
    mean, deviation = (value.item() for value in reversed(torch.std_mean(train.tensors[0])))
    data = TensorDataset((train.tensors[0] - mean) / deviation, train.tensors[1])
    images = ((tests.tensors[0] - mean) / deviation).to(options.device)
    networks, results = [], {}
    for training, mirrored in TRAININGS.items():
        torch.manual_seed(options.seed)
        networks.append(models.lenet5().to(options.device))
        learn(networks[-1], data, options.epochs or EPOCHS, options.seed, mirrored=mirrored)
        results[training] = tested(networks[-1], images, tests.tensors[1])
        for name, one in results[training].items():
            console.print(
                f"trained {training}, {name}: {100 * one.error:.1f} % wrong", soft_wrap=True
            )
    return Found(results, networks[0], tests, (mean, deviation))


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import multi_crop_page  # which imports matplotlib

    with use_backend(options.backend):
        found = compare(options, console)
        publish(multi_crop_page.html(found, options), options, console)
    return found.plain[FIVE].error < found.plain[ONE].error


RECIPE = Recipe(
    "multi-crop",
    "the mean of what LeNet-5 says of the corners and the centre of a picture is right more often "
    "than what it says of the centre",
    ("sklearn", "matplotlib"),
    _steps,
)
