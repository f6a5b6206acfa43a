"""Dropout by the extension; definition and arguments in ``csrc/dropout.h``."""

import torch

from pydl import layout
from pydl.contract.dropout import DropoutBackward, DropoutForward
from pydl.native import Library


def dropout_forward(library: Library, call: DropoutForward) -> torch.Tensor:
    x, p, seed = call
    return _run(library, layout.dense(x), p, seed)


def dropout_backward(library: Library, call: DropoutBackward) -> torch.Tensor:
    grad_y, p, seed, channels_last = call
    return _run(library, layout.ordered(grad_y, channels_last), p, seed)


def _run(library: Library, x: torch.Tensor, p: float, seed: torch.Tensor) -> torch.Tensor:
    y = layout.empty(x.shape, x)
    library.call("dropout", layout.line(x), layout.line(y), p, seed, on=x)
    return y
