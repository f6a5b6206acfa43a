"""Vanishing gradients: how much of the loss's gradient reaches the first layers of a deep network.

The derivative of the logistic function is a quarter at most, so behind each layer that ends in one
less of the gradient is left, and the first layers do not learn (Hochreiter 1991; Glorot, Bengio
2010, Understanding the Difficulty of Training Deep Feedforward Neural Networks). ReLU, batch
normalisation and shortcuts each keep more of it. All networks here are as deep, begin with fresh
weights and see the same real digits; nothing is trained.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from pydl import functional, measure, nn
from pydl.asked import use_backend
from pydl.data import digits
from pydl.models.resnet_cifar import Block
from pydl.recipes.recipe import Options, Recipe, publish

if TYPE_CHECKING:
    from rich.console import Console

DEPTH = 24  # convolutions behind the first, in pairs
MAPS = 16
IMAGES = 64


def _pair(activation: Callable[[], nn.Module]) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.Conv2d(MAPS, MAPS, 3, padding=1), activation()]
    return nn.Sequential(*layers)


# Two convolutions and what follows each of them.
PAIRS: dict[str, Callable[[], nn.Module]] = {
    "sigmoid": lambda: _pair(nn.Sigmoid),
    "ReLU": lambda: _pair(nn.ReLU),
    "batch normalisation, ReLU": lambda: Block(MAPS, MAPS, stride=1, residual=False),
    "the same with shortcuts": lambda: Block(MAPS, MAPS, stride=1, residual=True),
}


def chain(pair: Callable[[], nn.Module], depth: int = DEPTH) -> nn.Sequential:
    """From (N, 1, H, W) to (N, 10) scores through so many convolutions of one kind."""
    model = nn.Sequential(
        nn.Conv2d(1, MAPS, 3, padding=1),
        nn.ReLU(),
        *(pair() for _ in range(depth // 2)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(MAPS, 10),
    )
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return model


def norms(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """The norm of the gradient of each convolution's weights, from the first to the last."""
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    return [w.grad.norm().item() for w in weights if w.grad is not None]


def _steps(options: Options, console: "Console") -> bool:
    from pydl.visualize import page, plots  # which import matplotlib
    from pydl.visualize.curves import curves

    split = digits.load(options.seed)
    images, labels = (tensor[:IMAGES].to(options.device) for tensor in split.train.tensors)
    found: dict[str, Sequence[float]] = {}
    with use_backend(options.backend):
        for name, pair in PAIRS.items():
            torch.manual_seed(options.seed)
            found[name] = norms(chain(pair).to(options.device), images, labels)
            kept = found[name][0] / found[name][-1]
            console.print(f"{name}: the first layer's gradient is {kept:.1e} of the last one's")
    album = plots.Album(options.output)
    title = "Norm of the gradient of each convolution's weights"
    series = {name: list(enumerate(one, 1)) for name, one in found.items()}
    image = album(
        "gradients",
        lambda theme: curves(theme, title, "convolution, from the image on", series, log_y=True),
    )
    rows = [
        [name, f"{one[0]:.1e}", f"{one[-1]:.1e}", f"{one[0] / one[-1]:.1e}"]
        for name, one in found.items()
    ]
    parts = [
        page.section(
            "Layer by layer",
            page.paragraph(f"""
                Four networks of {DEPTH + 1} convolutions with {MAPS} maps each, fresh weights
                (He et al. 2015), {IMAGES} real digits. With the logistic function hardly anything
                of the gradient arrives at the first layers; ReLU passes it on, and batch
                normalisation and shortcuts keep all layers within reach of each other."""),
            page.picture(image, title),
            page.table(
                ["behind each convolution", "first layer", "last layer", "first of last"],
                rows,
                numbers=(1, 2, 3),
            ),
        )
    ]
    lead = """Why deep networks were hard to train, and what made it possible: the gradient of the
        loss at each layer of networks that differ in one thing."""
    versions = measure.versions(torch.device(options.device))
    publish(page.page("Vanishing gradients", lead, parts, versions), options, console)
    first_of_last = {name: one[0] / one[-1] for name, one in found.items()}
    return first_of_last["sigmoid"] < 1e-6 and first_of_last["the same with shortcuts"] > 1e-2


RECIPE = Recipe(
    "gradients",
    "with sigmoids less than a millionth of the gradient reaches the first of 25 layers, with "
    "batch normalisation and shortcuts more than a hundredth",
    ("sklearn", "matplotlib"),
    _steps,
)
