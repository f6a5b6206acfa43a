"""A convolutional network that returns a number, not a class: the angle by which a digit is turned.

Four 3x3 convolutions with batch normalisation and ReLU, average pools between them, dropout, one
output; trained by the mean squared error. The layers are those of the lectures' example of
convolutional regression.
"""

from pydl import nn
from pydl.models.model import Model


def regression(outputs: int = 1, *, channels: int = 1) -> nn.Sequential:
    """From (N, channels, 32, 32) to (N, outputs) numbers of any size."""
    layers: list[nn.Module] = []  # [N, channels, 32, 32]
    inputs = channels
    for maps, pooled in ((8, True), (16, True), (32, False), (32, False)):
        layers += [nn.Conv2d(inputs, maps, 3, padding=1, bias=False), nn.BatchNormAct2d(maps)]
        if pooled:
            layers.append(nn.AvgPool2d(2))  # [N, 8, 16, 16], then [N, 16, 8, 8]
        inputs = maps
    head = [nn.Dropout(0.2), nn.Flatten(), nn.Linear(32 * 8 * 8, outputs)]  # [N, outputs]
    return nn.Sequential(*layers, *head)


MODELS = (
    Model(
        "regression",
        regression,
        (1, 32, 32),
        "four convolutions that return the angle of a digit",
        "the lectures' example of regression with a convolutional network",
        task="regression",
        parameters=17_273,
    ),
)
