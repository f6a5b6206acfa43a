"""Activations as layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class ReLU(Layer, torch.nn.ReLU):
    """See :func:`pydl.functional.relu` and :class:`torch.nn.ReLU`.

    >>> pydl.nn.ReLU()(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.relu(input, self.inplace, backend=self._pydl_backend)


class LeakyReLU(Layer, torch.nn.LeakyReLU):
    """See :func:`pydl.functional.leaky_relu` and :class:`torch.nn.LeakyReLU`.

    >>> pydl.nn.LeakyReLU(0.5)(torch.tensor([-1.0, 2.0]))
    tensor([-0.5000,  2.0000])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(
            input, self.negative_slope, self.inplace, backend=self._pydl_backend
        )
