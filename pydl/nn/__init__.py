"""The layers with the constructors, names and ``state_dict`` of :mod:`torch.nn`, and ``backend=``.

Each subclasses its counterpart in ``torch.nn``, so initial weights, checkpoints, hooks and
``isinstance`` behave alike.
"""

from pydl.nn.conv import Conv2d
from pydl.nn.lrn import LocalResponseNorm
from pydl.nn.pool import AvgPool2d, MaxPool2d

__all__ = ["AvgPool2d", "Conv2d", "LocalResponseNorm", "MaxPool2d"]
