"""Architectures, one file each, and the table of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from pydl.models.alexnet import alexnet
from pydl.models.lenet5 import lenet5
from pydl.models.summary import LayerRow, summarize

__all__ = ["MODELS", "LayerRow", "Model", "alexnet", "build", "find", "lenet5", "summarize"]


@dataclass(frozen=True)
class Model:
    """One architecture of the table."""

    name: str
    build: Callable[[], nn.Module]
    input: tuple[int, int, int]  # C, H, W of one image
    about: str
    source: str


_LECUN = (
    "LeCun, Bottou, Bengio, Haffner 1998, Gradient-Based Learning Applied to Document Recognition"
)
_KRIZHEVSKY = (
    "Krizhevsky, Sutskever, Hinton 2012, ImageNet Classification with Deep Convolutional "
    "Neural Networks"
)

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("lenet5", lenet5, (1, 32, 32), "LeNet-5 with max pooling and ReLU", _LECUN),
        Model(
            "lenet5-1998",
            partial(lenet5, pool="average", activation="tanh"),
            (1, 32, 32),
            "LeNet-5 with average pooling and tanh",
            _LECUN,
        ),
        Model(
            "alexnet",
            partial(alexnet, "2012"),
            (3, 227, 227),
            "AlexNet as published, with LRN, two groups, dropout",
            _KRIZHEVSKY,
        ),
        Model(
            "alexnet-lecture",
            partial(alexnet, "lecture"),
            (3, 227, 227),
            "AlexNet as lectures draw it, without padding",
            _KRIZHEVSKY,
        ),
        Model(
            "alexnet-torchvision",
            partial(alexnet, "torchvision"),
            (3, 224, 224),
            "AlexNet with torchvision's layers",
            "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks",
        ),
    )
}


def find(name: str) -> Model:
    """The table's row of that name.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def build(name: str) -> nn.Module:
    """The model of that name with fresh weights; :func:`find` raises where there is none."""
    return find(name).build()
