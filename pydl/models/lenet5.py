"""LeNet-5: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document
Recognition", 1998."""

from collections import OrderedDict
from functools import partial

from pydl import nn
from pydl.models.model import Model

_POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def lenet5(num_classes: int = 10, *, pool: str = "max", activation: str = "relu") -> nn.Sequential:
    """LeNet-5 for images (N, 1, 32, 32): two convolutions, two pools, three fully connected layers.

    The paper pools by averages and squashes with a tanh: ``pool="average", activation="tanh"``
    comes close to it. Three things of 1998 are left out, as most reimplementations do: the trained
    coefficient of each pool, the table that lets a map of the second convolution see only some maps
    of the first, and the radial basis units at the end.

    Args:
        num_classes: scores per image.
        pool: ``max`` or ``average``, windows of 2x2.
        activation: ``relu``, ``tanh`` or ``sigmoid``, after each layer with weights but the last.

    Returns:
        A module from (N, 1, 32, 32) to (N, num_classes) scores, not normalised.

    Raises:
        ValueError: there is no such pool or activation.
    """
    if pool not in _POOLS:
        raise ValueError(f"pool must be one of {', '.join(_POOLS)}, got {pool!r}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    squash = _ACTIVATIONS[activation]
    return nn.Sequential(
        OrderedDict(  # [N, 1, 32, 32]
            conv1=nn.Conv2d(1, 6, kernel_size=5),  # [N, 6, 28, 28]
            act1=squash(),
            pool1=_POOLS[pool](2),  # [N, 6, 14, 14]
            conv2=nn.Conv2d(6, 16, kernel_size=5),  # [N, 16, 10, 10]
            act2=squash(),
            pool2=_POOLS[pool](2),  # [N, 16, 5, 5]
            flatten=nn.Flatten(),  # [N, 400]
            fc3=nn.Linear(16 * 5 * 5, 120),  # [N, 120]
            act3=squash(),
            fc4=nn.Linear(120, 84),  # [N, 84]
            act4=squash(),
            fc5=nn.Linear(84, num_classes),  # [N, num_classes]
        )
    )


_LECUN = (
    "LeCun, Bottou, Bengio, Haffner 1998, Gradient-Based Learning Applied to Document Recognition"
)

MODELS = (
    Model(
        "lenet5",
        lenet5,
        (1, 32, 32),
        "LeNet-5 with max pooling and ReLU",
        _LECUN,
        parameters=61_706,
    ),
    Model(
        "lenet5-1998",
        partial(lenet5, pool="average", activation="tanh"),
        (1, 32, 32),
        "LeNet-5 with average pooling and tanh",
        _LECUN,
        parameters=61_706,
    ),
)
