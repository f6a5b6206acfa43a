"""The layers with the constructors, names and ``state_dict`` of :mod:`torch.nn`, and ``backend=``.

Each subclasses its counterpart in ``torch.nn`` where there is one, so initial weights, checkpoints,
hooks and ``isinstance`` behave alike. What this package has no kernels for (``Linear``,
``Sequential``, ``init`` and so on) is torch.nn's own, by the same name: ``from pydl import nn``
reads like ``from torch import nn``.
"""

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # what __getattr__ hands through
    from torch.nn import *  # noqa: F403
    from torch.nn import Parameter as Parameter
    from torch.nn import functional as functional
    from torch.nn import init as init

from pydl.nn.batch_norm import (  # type: ignore[assignment]  # SyncBatchNorm is no subclass
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchNormAct2d,
    BatchNormAct3d,
    LazyBatchNorm1d,
    LazyBatchNorm2d,
    LazyBatchNorm3d,
    SyncBatchNorm,
)
from pydl.nn.bias_act import LeakyReLU, ReLU
from pydl.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvBiasAct2d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    LazyConv1d,
    LazyConv2d,
    LazyConv3d,
    LazyConvTranspose1d,
    LazyConvTranspose2d,
    LazyConvTranspose3d,
)
from pydl.nn.cross_entropy import CrossEntropyLoss, NLLLoss
from pydl.nn.dropout import Dropout, Dropout1d, Dropout2d, Dropout3d
from pydl.nn.local import LocallyConnected1d, LocallyConnected2d
from pydl.nn.lrn import LocalResponseNorm
from pydl.nn.pool import AvgPool1d, AvgPool2d, AvgPool3d, MaxPool1d, MaxPool2d, MaxPool3d
from pydl.nn.pool_adaptive import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    SpatialPyramidPool2d,
)
from pydl.nn.pool_lp import LPPool1d, LPPool2d, LPPool3d
from pydl.nn.rnn import GRU, LSTM, RNN  # type: ignore[assignment]  # made by a function
from pydl.nn.rnn_cell import GRUCell, LSTMCell, RNNCell
from pydl.nn.roi import RoIAlign, RoIPool
from pydl.nn.softmax import LogSoftmax, Softmax, Softmax2d
from pydl.nn.spatial_norm import SpatialResponseNorm
from pydl.nn.unpool import MaxUnpool1d, MaxUnpool2d, MaxUnpool3d

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchNormAct2d",
    "BatchNormAct3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvBiasAct2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "GRUCell",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "LSTMCell",
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LeakyReLU",
    "LocalResponseNorm",
    "LocallyConnected1d",
    "LocallyConnected2d",
    "LogSoftmax",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "NLLLoss",
    "RNNCell",
    "ReLU",
    "RoIAlign",
    "RoIPool",
    "Softmax",
    "Softmax2d",
    "SpatialPyramidPool2d",
    "SpatialResponseNorm",
    "SyncBatchNorm",
]


def __getattr__(name: str) -> object:
    if name.startswith("_") or not hasattr(torch.nn, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(torch.nn, name)
