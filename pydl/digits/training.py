"""Mini-batch gradient descent on the digits."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from pydl.digits.dataset import Digits

BATCH = 32
_PEAK_RATE = 0.03
_TURN, _SHIFT, _SCALE = 12.0, 0.1, 0.1  # at most: degrees, half widths of the image, parts of one


@dataclass(frozen=True)
class Epoch:
    """Once through the training images: loss and accuracy on them while learning, accuracy on the
    held-out ones."""

    loss: float
    train_accuracy: float
    accuracy: float
    seconds: float  # since training began


def distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image turned, moved and scaled a little, at random: a digit stays the digit that it is.

    Args:
        images: (N, 1, H, W).
        generator: on the CPU.

    Returns:
        Images of the same shape; pixels from outside repeat the border.
    """

    def uniform(most: float) -> torch.Tensor:  # [N] in -most ... most
        return (torch.rand(len(images), generator=generator) * 2 - 1) * most

    angle, scale = uniform(math.radians(_TURN)), 1 + uniform(_SCALE)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [
        torch.stack([cos, -sin, uniform(_SHIFT)], 1),
        torch.stack([sin, cos, uniform(_SHIFT)], 1),
    ]
    affine = torch.stack(rows, 1).to(images.device)  # [N, 2, 3]
    grid = nn.functional.affine_grid(affine, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Probabilities (N, classes), the model in evaluation mode."""
    model.eval()
    return torch.cat([model(batch) for batch in images.split(256)]).softmax(1)


def train(
    model: nn.Module,
    digits: Digits,
    *,
    epochs: int,
    seed: int,
    on_batch: Callable[[float], None] = lambda loss: None,
) -> Iterator[Epoch]:
    """Train by SGD: Nesterov momentum 0.9, weight decay 5e-4, cross-entropy, a rate that rises to
    0.03 and falls to 0.

    The held-out images decide nothing: the number of epochs is fixed beforehand, and the last
    weights are kept.

    Args:
        model: from (N, 1, 32, 32) to (N, 10) scores, on the device of the digits; trained in place.
        digits: images and their split.
        epochs: times through the training images, at least 1.
        seed: of the order and the distortion of the images.
        on_batch: called after each batch with its loss.

    Yields:
        An epoch's figures at its end.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = math.ceil(len(digits.train) / BATCH)
    optimizer = torch.optim.SGD(
        model.parameters(), _PEAK_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _PEAK_RATE, total_steps=epochs * batches, pct_start=0.2
    )
    images, labels = digits.images[digits.train], digits.labels[digits.train]
    began = time.perf_counter()
    for _ in range(epochs):
        model.train()
        losses, right = 0.0, 0
        for picked in torch.randperm(len(images), generator=generator).split(BATCH):
            picked = picked.to(images.device)
            scores = model(distort(images[picked], generator))
            loss = nn.functional.cross_entropy(scores, labels[picked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += loss.item() * len(picked)
            right += (scores.argmax(1) == labels[picked]).sum().item()
            on_batch(loss.item())
        read = predict(model, digits.images[digits.held_out]).argmax(1)
        accuracy = (read == digits.labels[digits.held_out]).float().mean().item()
        yield Epoch(
            losses / len(images), right / len(images), accuracy, time.perf_counter() - began
        )
