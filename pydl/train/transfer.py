"""Transfer learning: weights of another task to begin with, and layers that keep theirs."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn


def weighted(model: nn.Module) -> dict[str, nn.Module]:
    """The layers with weights by name, in the order in which they were made."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if any(True for _ in layer.parameters(recurse=False))
    }


def heads(model: nn.Module, classes: int) -> set[str]:
    """The names of the layers that give scores: the last one with weights, and those of auxiliary
    heads."""
    layers = dict(model.named_modules())
    named = [name for name, one in layers.items() if getattr(one, "weight", None) is not None]
    auxiliary = {
        name
        for name in named
        if "aux" in name.lower()
        and isinstance(layers[name], nn.Linear)
        and layers[name].out_features == classes
    }
    return {named[-1], *auxiliary}


def fitting(
    model: nn.Module, state: Mapping[str, torch.Tensor], classes: int
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Weights of the same network for other classes, as ``model`` can take them.

    Args:
        model: gives scores of so many ``classes``.
        state: a ``state_dict``.
        classes: see ``model``.

    Returns:
        The ``state_dict`` with the model's own tensors where those of its heads have other shapes,
        and the names of these.
    """
    own = model.state_dict()
    of_scores = heads(model, classes)
    left = [
        name
        for name, tensor in own.items()
        if name.rpartition(".")[0] in of_scores
        and name in state
        and state[name].shape != tensor.shape
    ]
    return {**state, **{name: own[name] for name in left}}, left


def backbone(model: nn.Module, classes: int) -> list[nn.Module]:
    """All layers with weights but those that give scores of so many ``classes``."""
    of_scores = heads(model, classes)
    return [layer for name, layer in weighted(model).items() if name not in of_scores]


def freeze(layers: list[nn.Module]) -> int:
    """Lets layers keep their weights, and batch normalisations their statistics, whatever mode the
    model is put in.

    Returns:
        How many weights these are.
    """
    for layer in layers:
        layer.requires_grad_(False)
        layer.eval()
        layer.train = partial(_stay, layer)  # type: ignore[method-assign]
    return sum(map(count, layers))


def _stay(layer: nn.Module, mode: bool = True) -> nn.Module:
    return layer


def discriminative(
    groups: Sequence[nn.Module], rate: float, factor: float = 2.6
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: ``rate`` for the last of ``groups``, the one in front of
    each learning ``factor`` times more slowly. Those without weights are left out.

    Source: Howard and Ruder 2018, ULMFiT, section 3.2.
    """
    made = []
    for place, group in enumerate(reversed(groups)):
        parameters = list(group.parameters())
        if parameters:
            made.append({"params": parameters, "lr": rate / factor**place})
    return made[::-1]


def unfreeze(groups: Sequence[nn.Module], count: int) -> None:
    """Lets the last ``count`` of ``groups`` learn and the others keep their weights, so that one
    after the other may be thawed, the last first.

    Source: Howard and Ruder 2018, ULMFiT, section 3.3, gradual unfreezing.

    Raises:
        ValueError: there are not so many.
    """
    if not 0 < count <= len(groups):
        raise ValueError(f"count must be 1 to {len(groups)}, the number of groups, got {count}")
    for place, group in enumerate(groups):
        group.requires_grad_(place >= len(groups) - count)


def count(layer: nn.Module) -> int:
    """How many weights it has."""
    return sum(p.numel() for p in layer.parameters())
