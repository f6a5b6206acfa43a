"""Softmax as layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class Softmax(Layer, torch.nn.Softmax):
    """See :func:`pydl.functional.softmax` and :class:`torch.nn.Softmax`.

    >>> pydl.nn.Softmax(1)(torch.zeros(1, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.softmax(input, self.dim, _stacklevel=5, backend=self._pydl_backend)


class Softmax2d(Layer, torch.nn.Softmax2d):
    """Over the channels of each pixel. See :func:`pydl.functional.softmax` and
    :class:`torch.nn.Softmax2d`.

    >>> pydl.nn.Softmax2d()(torch.zeros(1, 4, 5, 5))[0, :, 0, 0]
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.ndim not in (3, 4):
            raise ValueError(f"Softmax2d: expected input to be 3D or 4D, got {input.ndim}D instead")
        return functional.softmax(input, -3, _stacklevel=5, backend=self._pydl_backend)


class LogSoftmax(Layer, torch.nn.LogSoftmax):
    """See :func:`pydl.functional.log_softmax` and :class:`torch.nn.LogSoftmax`.

    >>> pydl.nn.LogSoftmax(1)(torch.zeros(1, 4))
    tensor([[-1.3863, -1.3863, -1.3863, -1.3863]])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(input, self.dim, _stacklevel=5, backend=self._pydl_backend)
