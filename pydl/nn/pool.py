"""Max and average pooling layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class MaxPool1d(Layer, torch.nn.MaxPool1d):
    """See :func:`pydl.functional.max_pool1d` and :class:`torch.nn.MaxPool1d`.

    >>> pydl.nn.MaxPool1d(2)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.max_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            backend=self._pydl_backend,
        )


class MaxPool2d(Layer, torch.nn.MaxPool2d):
    """See :func:`pydl.functional.max_pool2d` and :class:`torch.nn.MaxPool2d`.

    >>> pydl.nn.MaxPool2d(2)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 6, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            backend=self._pydl_backend,
        )


class MaxPool3d(Layer, torch.nn.MaxPool3d):
    """See :func:`pydl.functional.max_pool3d` and :class:`torch.nn.MaxPool3d`.

    >>> pydl.nn.MaxPool3d(2)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 2, 6, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.max_pool3d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            backend=self._pydl_backend,
        )


class AvgPool1d(Layer, torch.nn.AvgPool1d):
    """See :func:`pydl.functional.avg_pool1d` and :class:`torch.nn.AvgPool1d`.

    >>> pydl.nn.AvgPool1d(2)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool1d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            backend=self._pydl_backend,
        )


class AvgPool2d(Layer, torch.nn.AvgPool2d):
    """See :func:`pydl.functional.avg_pool2d` and :class:`torch.nn.AvgPool2d`.

    >>> pydl.nn.AvgPool2d(2)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 6, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            backend=self._pydl_backend,
        )


class AvgPool3d(Layer, torch.nn.AvgPool3d):
    """See :func:`pydl.functional.avg_pool3d` and :class:`torch.nn.AvgPool3d`.

    >>> pydl.nn.AvgPool3d(2)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 2, 6, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool3d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            backend=self._pydl_backend,
        )
