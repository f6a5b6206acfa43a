"""ResNets for small images and their plain twins: He, Zhang, Ren, Sun, "Deep Residual Learning for
Image Recognition", 2015, section 4.2.

A 3x3 convolution, three stages of n blocks with 16, 32 and 64 maps on 32, 16 and 8 pixels, an
average and scores: 6n + 2 layers with weights. Shortcuts have none: where the map is halved they
take every other pixel and leave the new maps zero (option A). A plain network is the same without
shortcuts; beyond some depth it trains worse the deeper it is.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from pydl import nn
from pydl.models.model import Model


class Block(nn.Module):
    """Two 3x3 convolutions, with or without a shortcut around them."""

    def __init__(self, inputs: int, maps: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, maps, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNormAct2d(maps)
        self.conv2 = nn.Conv2d(maps, maps, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNormAct2d(maps)
        self.stride, self.new_maps, self.residual = stride, maps - inputs, residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self._shortcut(x) if self.residual else None
        y = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(y), shortcut)

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.new_maps)) if self.new_maps else x


@contextlib.contextmanager
def _counted_already(layers: nn.Module) -> Iterator[None]:
    """Inside the ``with`` block batch normalisation leaves its running statistics as they are: they
    have seen the batch that is computed once more."""
    norms = [layer for layer in layers.modules() if isinstance(layer, _NormBase)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def _both_times(
    layers: nn.Module,
) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    """What surrounds some layers in the forward pass, and where the backward computes it again."""
    return contextlib.nullcontext(), _counted_already(layers)


class CifarResNet(nn.Module):
    """The network of 6 * blocks + 2 layers.

    Args:
        blocks: of each of the three stages.
        num_classes: scores per image.
        channels: of the images.
        residual: False builds the plain twin.
        checkpoint: into how many pieces the blocks are cut in training, of which each keeps only
            its input and computes the rest once more in the backward pass; 0 keeps everything.
            The deepest network needs it: what 1,202 layers keep grows with the depth, with about
            its square root as many pieces only with that root.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        *,
        channels: int = 3,
        residual: bool = True,
        checkpoint: int = 0,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNormAct2d(16)
        self.blocks = nn.Sequential()
        inputs = 16
        for maps in (16, 32, 64):
            for i in range(blocks):
                stride = 2 if i == 0 and maps > 16 else 1
                self.blocks.append(Block(inputs, maps, stride, residual))
                inputs = maps
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        self.checkpoint = checkpoint
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [N, channels, 32, 32]
        x = self.bn1(self.conv1(x))  # [N, 16, 32, 32]
        if self.checkpoint and torch.is_grad_enabled():
            x = self._piece_by_piece(x)
        else:
            x = self.blocks(x)  # [N, 64, 8, 8]
        return self.fc(self.avgpool(x).flatten(1))  # [N, num_classes]

    def _piece_by_piece(self, x: torch.Tensor) -> torch.Tensor:
        size = -(-len(self.blocks) // self.checkpoint)
        *pieces, last = (self.blocks[i : i + size] for i in range(0, len(self.blocks), size))
        for piece in pieces:
            x = checkpoint(piece, x, use_reentrant=False, context_fn=partial(_both_times, piece))
        return last(x)  # whose gradient is the next thing to be computed


def resnet_cifar(
    depth: int, num_classes: int = 10, *, channels: int = 3, residual: bool = True
) -> CifarResNet:
    """The network of so many layers with weights: 6n + 2.

    Raises:
        ValueError: no n gives that depth.
    """
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth must be 6n + 2 (20, 32, 44, 56, 110, 1202), got {depth}")
    pieces = 20 if depth > 1000 else 0
    return CifarResNet(blocks, num_classes, channels=channels, residual=residual, checkpoint=pieces)


_HE = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition"


def _row(depth: int, residual: bool, parameters: int) -> Model:
    return Model(
        f"{'resnet' if residual else 'plain'}{depth}",
        partial(resnet_cifar, depth, residual=residual),
        (3, 32, 32),
        f"{'ResNet' if residual else 'the same without shortcuts'} of {depth} layers, "
        "for images of 32 pixels",
        _HE,
        parameters=parameters,
    )


MODELS = tuple(
    _row(depth, residual, parameters)
    for depth, parameters in (
        (20, 269_722),
        (32, 464_154),
        (44, 658_586),
        (56, 853_018),
        (110, 1_727_962),
        (1202, 19_421_274),
    )
    for residual in ((True, False) if depth < 1000 else (True,))
)
