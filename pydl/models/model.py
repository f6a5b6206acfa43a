"""What the table of networks says of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Model:
    """One network: how to build it, what it is, and which figures were published of it.

    ``task`` is what the network is for. Of one for ``segmentation`` the output has scores for each
    pixel; it is a tensor, or a dict in which that is ``out``. ``clips`` are to be classified.
    Networks with ``tokens`` are for sequences: what they take are not images but numbers below
    ``tokens``, time first, and one with a ``target`` is given that sequence too, which it is to
    write. Where its input is C, H, W or C, T, H, W all the same, it writes about images or clips.

    ``parameters`` counts weights and biases. ``giga_multiply_adds`` are those of convolutions and
    fully connected layers on one input, in 10^9, with as many digits as were published. A network
    with a ``golden`` gives the outputs of that independent implementation with the same weights
    (tests/golden): of ``torchvision``, whose ``state_dict`` has the same keys, or of a graph that
    comes with ``onnx``. ``top1`` is the part of ImageNet's 50,000 validation images, in percent,
    that torchvision documents for its first weights of the network (``IMAGENET1K_V1``);
    ``mean_iou`` the mean Jaccard index, in percent, that it documents for those of segmentation
    (``COCO_WITH_VOC_LABELS_V1``, on COCO's validation images with the 21 classes of VOC).
    """

    name: str
    build: Callable[[], nn.Module]
    # C, H, W of one image; C, T, H, W of a clip; C, D, H, W of a volume; T, ... of a sequence
    input: tuple[int, ...]
    about: str
    source: str
    task: str = "classification"
    small: tuple[int, ...] | None = None  # the input of tests that compute; None: `input`
    tokens: int | None = None
    target: tuple[int, ...] | None = None  # T, ... of a sequence
    parameters: int | None = None
    giga_multiply_adds: str | None = None
    top1: float | None = None
    mean_iou: float | None = None
    golden: str | None = None

    @property
    def sample(self) -> tuple[int, ...]:
        """The sizes of an input that is small enough to compute with in a test."""
        return self.small or self.input

    def inputs(
        self,
        batch: int = 1,
        shape: tuple[int, ...] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """What the network is called with: images (batch, C, H, W), or sequences (T, batch, ...),
        int64, and with a target that as well. Drawn at random, but on the ``meta`` device.

        ``shape`` is that of one example, :attr:`input` if it is None; ``dtype`` that of images.
        """
        shape = shape or self.input
        meta = device is not None and torch.device(device).type == "meta"
        given: Any = {"device": device} if meta else {"device": device, "generator": generator}

        def images(size: tuple[int, ...]) -> torch.Tensor:
            draw = torch.empty if meta else torch.randn
            return draw((batch, *size), dtype=dtype, **given)

        def sequences(size: tuple[int, ...]) -> torch.Tensor:
            steps, *more = size
            if meta:
                return torch.empty((steps, batch, *more), dtype=torch.int64, **given)
            assert self.tokens is not None
            return torch.randint(self.tokens, (steps, batch, *more), **given)

        of_images = self.tokens is None or len(shape) >= 3
        first = images(shape) if of_images else sequences(shape)
        return (first,) if self.target is None else (first, sequences(self.target))

    def check_classifier(self) -> None:
        """Raises ValueError where the network is no classifier."""
        if self.task != "classification":
            raise ValueError(
                f"{self.name} is for {self.task}, not for classification: {self.about}"
            )

    def for_classes(self, count: int, **options: Any) -> nn.Module:
        """The network with fresh weights and scores of so many classes; ``options`` are its
        builder's.

        Raises:
            ValueError: it is no classifier.
        """
        self.check_classifier()
        return self.build(num_classes=count, **options)  # type: ignore[call-arg]


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


def as_torchvision_segmentation(
    build: Callable[[], nn.Module],
    about: str,
    source: str,
    parameters: int,
    giga: str,
    mean_iou: float,
) -> Model:
    """The row of a network that torchvision has by the name of its builder, for segmentation."""
    return Model(
        build.__name__,
        build,
        (3, 520, 520),
        about,
        source,
        task="segmentation",
        small=(3, 32, 32),
        parameters=parameters,
        giga_multiply_adds=giga,
        mean_iou=mean_iou,
        golden="torchvision",
    )
