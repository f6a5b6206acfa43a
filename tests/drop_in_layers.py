"""The layers that ``drop_in.py`` compares with their counterparts in torch.nn."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import pydl


@dataclass(frozen=True)
class Layer:
    """A column of the table.

    Attributes:
        name: pydl.nn's class.
        arguments: of the constructor, in ours and in torch.nn.
        small, large: shapes of inputs that PyTorch's own operator and, for ``auto`` on a CPU, a
            kernel of ours serves.
        own: our arguments where PyTorch has no such layer; then the counterpart is ours, served by
            PyTorch's operators.
        more: what ``forward`` takes besides, made from the input.
    """

    name: str
    arguments: tuple = ()
    small: tuple[int, ...] = (2, 4, 8, 8)
    large: tuple[int, ...] = (2, 8, 128, 128)
    own: dict | None = None
    more: Callable[[torch.Tensor], tuple] = lambda x: ()
    random: bool = False  # its values are drawn anew at each call
    training: bool = True

    def __str__(self) -> str:
        return self.name + ("" if not self.own else "+")

    def pair(self, shape: tuple[int, ...], **factory: object) -> tuple:
        """Ours and its counterpart, with equal weights, for inputs of this shape."""
        arguments = [shape[a.axis] if isinstance(a, Size) else a for a in self.arguments]
        ours = getattr(pydl.nn, self.name)(*arguments, **(self.own or {}), **factory)
        if self.own is not None:
            stock = copy.deepcopy(ours)
            stock.backend = self.twin
        else:
            stock = getattr(torch.nn, self.name)(*arguments, **factory)
            stock.load_state_dict(ours.state_dict())
        return ours.train(self.training), stock.train(self.training)

    @property
    def twin(self) -> str:
        return "reference" if self.name.startswith("RoI") else "aten"


@dataclass(frozen=True)
class Size:
    """An argument that is the input's size along an axis."""

    axis: int


C = Size(1)
_LINE, _LONG = (2, 4, 24), (4, 16, 4096)
_CUBE, _ROOM = (1, 4, 6, 6, 6), (2, 8, 16, 32, 32)


def _boxes(x: torch.Tensor) -> tuple:
    n, side = x.shape[0], x.shape[-1] - 1.0
    each = [[image, 0.0, 0.0, side, side / 2] for image in range(n)]
    return (torch.tensor(each, dtype=x.dtype, device=x.device),)


def _classes(x: torch.Tensor) -> tuple:
    shape = (x.shape[0], *x.shape[2:])
    count = int(np.prod(shape))
    return ((torch.arange(count, device=x.device) % x.shape[1]).reshape(shape),)


def _halves_of(axes: int) -> Callable[[torch.Tensor], tuple]:
    def indices(x: torch.Tensor) -> tuple:
        """Of a pooling by two: the first place of each window."""
        grid = torch.zeros((), dtype=torch.int64, device=x.device)
        for n in x.shape[-axes:]:
            grid = grid.unsqueeze(-1) * (2 * n) + 2 * torch.arange(n, device=x.device)
        return (grid.expand(x.shape).contiguous(),)

    return indices


LAYERS = (
    Layer("Conv1d", (C, 6, 3), _LINE, _LONG),
    Layer("Conv2d", (C, 6, 3)),
    Layer("Conv2d", (C, C, 3, 1, 1, 1, C), (2, 4, 16, 16), (2, 8, 64, 64)),
    Layer("Conv3d", (C, 6, 3), _CUBE, (1, 4, 8, 16, 16)),
    Layer("ConvTranspose1d", (C, 6, 3), _LINE, _LONG),
    Layer("ConvTranspose2d", (C, 6, 3)),
    Layer("ConvTranspose3d", (C, 6, 3), _CUBE, (1, 4, 8, 16, 16)),
    Layer("ConvBiasAct2d", (C, 6, 3), own={"activation": "relu"}),
    Layer("LocallyConnected2d", (C, 3, (8, 8), 3), large=(64, 4, 8, 8), own={}),
    Layer("MaxPool1d", (3, 2), _LINE, _LONG),
    Layer("MaxPool2d", (3, 2, 1)),
    Layer("MaxPool3d", (2,), _CUBE, _ROOM),
    Layer("AvgPool1d", (3, 2), _LINE, _LONG),
    Layer("AvgPool2d", (3, 2, 1)),
    Layer("AvgPool3d", (2,), _CUBE, _ROOM),
    Layer("LPPool1d", (2, 3), _LINE, _LONG),
    Layer("LPPool2d", (2, 3)),
    Layer("LPPool3d", (2, 2), _CUBE, _ROOM),
    Layer("AdaptiveAvgPool1d", (5,), _LINE, _LONG),
    Layer("AdaptiveAvgPool2d", (5,)),
    Layer("AdaptiveAvgPool3d", (3,), _CUBE, _ROOM),
    Layer("AdaptiveMaxPool1d", (5,), _LINE, _LONG),
    Layer("AdaptiveMaxPool2d", (5,)),
    Layer("AdaptiveMaxPool3d", (3,), _CUBE, _ROOM),
    Layer("SpatialPyramidPool2d", ((1, 2, 3),), own={}),
    Layer("MaxUnpool1d", (2,), _LINE, _LONG, more=_halves_of(1)),
    Layer("MaxUnpool2d", (2,), more=_halves_of(2)),
    Layer("MaxUnpool3d", (2,), _CUBE, _ROOM, more=_halves_of(3)),
    Layer("RoIAlign", (2, 1.0, 2), own={}, more=_boxes),
    Layer("RoIPool", (2, 1.0), own={}, more=_boxes),
    Layer("LocalResponseNorm", (3,)),
    Layer("SpatialResponseNorm", (3,), own={}),
    Layer("BatchNorm1d", (C,), _LINE, _LONG),
    Layer("BatchNorm2d", (C,)),
    Layer("BatchNorm2d", (C,), training=False),
    Layer("BatchNorm3d", (C,), _CUBE, _ROOM),
    Layer("BatchNormAct2d", (C,), own={"activation": "relu"}),
    Layer("BatchNormAct3d", (C,), _CUBE, _ROOM, own={"activation": "relu"}),
    Layer("Softmax", (1,), (3, 5), (40_000, 5)),
    Layer("Softmax2d", (), large=(2, 21, 224, 224)),
    Layer("LogSoftmax", (1,), (3, 5), (40_000, 5)),
    Layer("CrossEntropyLoss", (), (4, 5), (60_000, 5), more=_classes),
    Layer("NLLLoss", (), (4, 5), (60_000, 5), more=_classes),
    Layer("Dropout", (0.4,), random=True),
    Layer("Dropout1d", (0.4,), _LINE, _LONG, random=True),
    Layer("Dropout2d", (0.4,), random=True),
    Layer("Dropout3d", (0.4,), _CUBE, _ROOM, random=True),
    Layer("ReLU"),
    Layer("LeakyReLU", (0.1,)),
    Layer("RNN", (Size(2), 6), (5, 2, 4), (12, 8, 32)),
    Layer("LSTM", (Size(2), 6), (5, 2, 4), (12, 8, 32)),
    Layer("GRU", (Size(2), 6), (5, 2, 4), (12, 8, 32)),
    Layer("LSTM", (Size(2), 6), (5, 2, 4), (12, 8, 32), own={"peephole": True}),
    Layer("GRU", (Size(2), 6), (5, 2, 4), (12, 8, 32), own={"reset_after": False}),
    Layer("RNNCell", (C, 6), (3, 4), (64, 64)),
    Layer("LSTMCell", (C, 6), (3, 4), (64, 64)),
    Layer("GRUCell", (C, 6), (3, 4), (64, 64)),
)  # fmt: skip

# Which of them docs/drop-in.md shows as one column.
_KINDS = {
    "convolution": "Conv|LocallyConnected",
    "pooling": "MaxPool|AvgPool|LPPool|AdaptiveAvg|AdaptiveMax|SpatialPyramid|MaxUnpool",
    "regions": "RoI",
    "response norm": "Local|Spatial",
    "batch norm": "BatchNorm",
    "softmax, loss": "Softmax|LogSoftmax|CrossEntropy|NLL",
    "dropout": "Dropout",
    "activation": "ReLU|LeakyReLU",
    "recurrent": "RNN|LSTM|GRU",
}


def _kind(layer: Layer) -> str:
    fitting = (k for k, names in _KINDS.items() if layer.name.startswith(tuple(names.split("|"))))
    return next(fitting)


KINDS = {kind: [layer for layer in LAYERS if _kind(layer) == kind] for kind in _KINDS}
