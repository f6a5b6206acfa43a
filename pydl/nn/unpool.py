"""Max unpooling layers."""

from collections.abc import Sequence

import torch

from pydl import functional
from pydl.nn.layer import Layer


class MaxUnpool1d(Layer, torch.nn.MaxUnpool1d):
    """See :func:`pydl.functional.max_unpool1d` and :class:`torch.nn.MaxUnpool1d`.

    >>> y, indices = pydl.nn.MaxPool1d(2, return_indices=True)(torch.randn(2, 3, 10))
    >>> pydl.nn.MaxUnpool1d(2)(y, indices).shape
    torch.Size([2, 3, 10])
    """

    def forward(
        self,
        input: torch.Tensor,
        indices: torch.Tensor,
        output_size: Sequence[int] | None = None,
    ) -> torch.Tensor:
        window = self.kernel_size, self.stride, self.padding, output_size
        return functional.max_unpool1d(input, indices, *window, backend=self._pydl_backend)


class MaxUnpool2d(Layer, torch.nn.MaxUnpool2d):
    """See :func:`pydl.functional.max_unpool2d` and :class:`torch.nn.MaxUnpool2d`.

    >>> y, indices = pydl.nn.MaxPool2d(2, return_indices=True)(torch.randn(2, 3, 12, 10))
    >>> pydl.nn.MaxUnpool2d(2)(y, indices).shape
    torch.Size([2, 3, 12, 10])
    """

    def forward(
        self,
        input: torch.Tensor,
        indices: torch.Tensor,
        output_size: Sequence[int] | None = None,
    ) -> torch.Tensor:
        window = self.kernel_size, self.stride, self.padding, output_size
        return functional.max_unpool2d(input, indices, *window, backend=self._pydl_backend)


class MaxUnpool3d(Layer, torch.nn.MaxUnpool3d):
    """See :func:`pydl.functional.max_unpool3d` and :class:`torch.nn.MaxUnpool3d`.

    >>> y, indices = pydl.nn.MaxPool3d(2, return_indices=True)(torch.randn(2, 3, 4, 12, 10))
    >>> pydl.nn.MaxUnpool3d(2)(y, indices).shape
    torch.Size([2, 3, 4, 12, 10])
    """

    def forward(
        self,
        input: torch.Tensor,
        indices: torch.Tensor,
        output_size: Sequence[int] | None = None,
    ) -> torch.Tensor:
        window = self.kernel_size, self.stride, self.padding, output_size
        return functional.max_unpool3d(input, indices, *window, backend=self._pydl_backend)
