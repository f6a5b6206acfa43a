"""The one table of networks, put together from their files."""

from torch import nn

from pydl.models.alexnet import MODELS as ALEXNET
from pydl.models.lenet5 import MODELS as LENET5
from pydl.models.model import Model
from pydl.models.resnet import MODELS as RESNET
from pydl.models.vgg import MODELS as VGG

MODELS: dict[str, Model] = {model.name: model for model in (*LENET5, *ALEXNET, *VGG, *RESNET)}


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
