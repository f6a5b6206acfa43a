"""LeNet-5's training on the digits."""

from collections.abc import Sequence

import torch
from torch import nn

from pydl.data import Split
from pydl.train import Epoch, Settings, fit, schedules
from pydl.train.augment import Affine

# A digit that is turned, moved and scaled a little stays the digit that it is.
DISTORTION = Affine(degrees=12, shift=0.05, scale=0.1)


def train(model: nn.Module, split: Split, *, epochs: int, seed: int) -> Sequence[Epoch]:
    """SGD with Nesterov momentum and a rate that rises to 0.03 and falls to nearly 0.

    The held-out images decide nothing: the number of epochs is fixed beforehand, and the last
    weights are kept.

    Args:
        model: from (N, 1, 32, 32) to (N, 10) scores; trained in place.
        split: the digits.
        epochs: times through the training images.
        seed: of the order and the distortion of the images.
    """
    settings = Settings(
        batch=32, seed=seed, rate=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return fit(
        model,
        split.train,
        epochs=epochs,
        held_out=split.held_out,
        schedule=schedules.one_cycle(warm_up=0.2),
        augment=DISTORTION,
        settings=settings,
    ).epochs


@torch.no_grad()
def predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, classes), the model in evaluation mode."""
    model.eval()
    return torch.cat([model(batch) for batch in images.split(256)]).softmax(1)
