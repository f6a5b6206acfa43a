"""Features through training: what excites a map most after each number of epochs.

Zeiler, Fergus 2013 (Visualizing and Understanding Convolutional Networks, figure 4) follow maps of
each layer through training and find that "the lower layers of the model can be seen to converge
within a few epochs", while the upper ones take much longer. Here LeNet-5 learns to read real
digits, and is watched with the held-out ones. How far a layer has come is measured by how its
activations correlate with those that it has in the end.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from pydl import models, nn
from pydl.asked import use_backend
from pydl.data import Split, digits
from pydl.recipes.recipe import Options, Recipe, publish
from pydl.train import Epoch, Settings, evaluate, fit
from pydl.visualize import activations

if TYPE_CHECKING:
    from rich.console import Console

EPOCHS = 64
SEEN = (0, 1, 2, 5, 10, 20, 30, 40, 64)  # the paper's, and the fresh weights
LAYERS = {
    "act1": "convolution 1",
    "act2": "convolution 2",
    "act3": "fully connected 3",
    "act4": "fully connected 4",
}
SETTLED = 0.95

# By the number of epochs, the activations of each layer for the held-out digits.
Snapshots = Mapping[int, Mapping[str, torch.Tensor]]
Correlations = Mapping[int, float]  # by the number of epochs


@dataclass(frozen=True)
class Found:
    """What came of a run."""

    split: Split
    snapshots: Snapshots
    similar: Mapping[str, Correlations]  # by the layer, with its activations in the end
    accuracy: float  # of the held-out digits, in the end


def follow(model: nn.Module, split: Split, epochs: int, seed: int) -> Snapshots:
    """Trains the model (SGD at one rate throughout) and looks at it in between."""
    images, _ = split.held_out.tensors
    images = images.to(next(model.parameters()).device)
    found = {0: activations(model, images, *LAYERS)}

    def look(epoch: Epoch) -> None:
        if epoch.number in SEEN or epoch.number == epochs:
            found[epoch.number] = activations(model, images, *LAYERS)

    settings = Settings(batch=32, seed=seed, rate=0.01)
    fit(model, split.train, epochs=epochs, settings=settings, on_epoch=look)
    return found


def correlation(some: torch.Tensor, others: torch.Tensor) -> float:
    """Of activations [N, maps, ...] with others of the same maps, over all images and places: the
    mean over the maps that are not constant."""
    a, b = (one.transpose(0, 1).flatten(1).double() for one in (some, others))
    a, b = (one - one.mean(1, keepdim=True) for one in (a, b))
    scale = a.norm(dim=1) * b.norm(dim=1)
    alive = scale > 0
    return ((a * b).sum(1)[alive] / scale[alive]).mean().item()


def strongest(maps: torch.Tensor) -> int:
    """Of one map's activations [N, H, W]: the image that excites it most at one place."""
    return int(maps.flatten(1).amax(1).argmax())


def settled(curve: Correlations) -> int:
    """The first of these epochs from which on the correlation is at least :data:`SETTLED`."""
    first = max(curve)
    for epoch in sorted(curve, reverse=True):
        if curve[epoch] < SETTLED:
            break
        first = epoch
    return first


def way(curve: Correlations) -> Correlations:
    """The part of the way from the fresh weights' correlation to 1 that is gone."""
    return {epoch: (value - curve[0]) / (1 - curve[0]) for epoch, value in curve.items()}


def watch(options: Options) -> Found:
    """Trains LeNet-5 and looks at it in between."""
    split = digits.load(options.seed)
    torch.manual_seed(options.seed)
    model = models.lenet5().to(options.device)
    snapshots = follow(model, split, options.epochs or EPOCHS, options.seed)
    accuracy = evaluate(model, split.held_out).accuracy or 0.0
    last = snapshots[max(snapshots)]
    similar = {
        layer: {epoch: correlation(one[layer], last[layer]) for epoch, one in snapshots.items()}
        for layer in LAYERS
    }
    return Found(split, snapshots, similar, accuracy)


def _steps(options: Options, console: "Console") -> bool:
    from pydl.recipes import features_page  # which imports matplotlib

    with use_backend(options.backend):
        found = watch(options)
    for layer, curve in found.similar.items():
        after = ", ".join(f"{value:.2f} after {epoch}" for epoch, value in curve.items())
        console.print(f"{LAYERS[layer]}: correlation with its end {after} epochs", soft_wrap=True)
    publish(features_page.html(found, options), options, console)
    first, *others = (settled(curve) for curve in found.similar.values())
    return first < min(others)


RECIPE = Recipe(
    "features",
    f"the maps of LeNet-5's first convolution correlate by {SETTLED} with what they will be before "
    "those of any layer above",
    ("sklearn", "matplotlib"),
    _steps,
)
