"""Dropout as layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class Dropout(Layer, torch.nn.Dropout):
    """See :func:`pydl.functional.dropout` and :class:`torch.nn.Dropout`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout(input, self.p, self.training, self.inplace, backend=self.backend)


class Dropout1d(Layer, torch.nn.Dropout1d):
    """See :func:`pydl.functional.dropout1d` and :class:`torch.nn.Dropout1d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout1d(
            input, self.p, self.training, self.inplace, backend=self.backend
        )


class Dropout2d(Layer, torch.nn.Dropout2d):
    """See :func:`pydl.functional.dropout2d` and :class:`torch.nn.Dropout2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout2d(
            input, self.p, self.training, self.inplace, backend=self.backend
        )


class Dropout3d(Layer, torch.nn.Dropout3d):
    """See :func:`pydl.functional.dropout3d` and :class:`torch.nn.Dropout3d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout3d(
            input, self.p, self.training, self.inplace, backend=self.backend
        )
