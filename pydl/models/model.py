"""What the table of networks says of each."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Model:
    """One network: how to build it, what it is, and which figures were published of it.

    ``parameters`` counts weights and biases. ``giga_multiply_adds`` are those of convolutions and
    fully connected layers on one input, in 10^9, with as many digits as were published. A network
    with a ``golden`` gives the outputs of that independent implementation with the same weights
    (tests/golden): of ``torchvision``, whose ``state_dict`` has the same keys, or of a graph that
    comes with ``onnx``. ``top1`` is the part of ImageNet's 50,000 validation images, in percent,
    that torchvision documents for its first weights of the network (``IMAGENET1K_V1``).
    """

    name: str
    build: Callable[[], nn.Module]
    input: tuple[int, ...]  # C, H, W of one image; C, T, H, W of a clip; C, D, H, W of a volume
    about: str
    source: str
    small: tuple[int, ...] | None = None  # the input of tests that compute; None: `input`
    parameters: int | None = None
    giga_multiply_adds: str | None = None
    top1: float | None = None
    golden: str | None = None

    @property
    def sample(self) -> tuple[int, ...]:
        """The sizes of an input that is small enough to compute with in a test."""
        return self.small or self.input


def as_torchvision(
    build: Callable[[], nn.Module],
    about: str,
    source: str,
    parameters: int,
    giga: str,
    top1: float,
    *,
    side: int = 224,
) -> Model:
    """The row of a network that torchvision has by the name of its builder, for square images of
    three colours."""
    return Model(
        build.__name__,
        build,
        (3, side, side),
        about,
        source,
        small=(3, 64, 64),
        parameters=parameters,
        giga_multiply_adds=giga,
        top1=top1,
        golden="torchvision",
    )
