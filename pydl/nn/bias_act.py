"""Activations as layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class ReLU(Layer, torch.nn.ReLU):
    """See :func:`pydl.functional.relu` and :class:`torch.nn.ReLU`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.relu(input, self.inplace, backend=self.backend)


class LeakyReLU(Layer, torch.nn.LeakyReLU):
    """See :func:`pydl.functional.leaky_relu` and :class:`torch.nn.LeakyReLU`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(input, self.negative_slope, self.inplace, backend=self.backend)
