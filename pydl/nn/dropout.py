"""Dropout as layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class Dropout(Layer, torch.nn.Dropout):
    """See :func:`pydl.functional.dropout` and :class:`torch.nn.Dropout`.

    >>> pydl.nn.Dropout(0.5)(torch.randn(2, 10)).shape
    torch.Size([2, 10])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout(
            input, self.p, self.training, self.inplace, backend=self._pydl_backend
        )


class Dropout1d(Layer, torch.nn.Dropout1d):
    """See :func:`pydl.functional.dropout1d` and :class:`torch.nn.Dropout1d`.

    >>> pydl.nn.Dropout1d(0.5)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 10])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout1d(
            input, self.p, self.training, self.inplace, backend=self._pydl_backend
        )


class Dropout2d(Layer, torch.nn.Dropout2d):
    """See :func:`pydl.functional.dropout2d` and :class:`torch.nn.Dropout2d`.

    >>> pydl.nn.Dropout2d(0.5)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 12, 10])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout2d(
            input, self.p, self.training, self.inplace, backend=self._pydl_backend
        )


class Dropout3d(Layer, torch.nn.Dropout3d):
    """See :func:`pydl.functional.dropout3d` and :class:`torch.nn.Dropout3d`.

    >>> pydl.nn.Dropout3d(0.5)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 4, 12, 10])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.dropout3d(
            input, self.p, self.training, self.inplace, backend=self._pydl_backend
        )
