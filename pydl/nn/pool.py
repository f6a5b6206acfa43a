"""Pooling layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class MaxPool2d(Layer, torch.nn.MaxPool2d):
    """See :func:`pydl.functional.max_pool2d` and :class:`torch.nn.MaxPool2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return functional.max_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
            backend=self.backend,
        )


class AvgPool2d(Layer, torch.nn.AvgPool2d):
    """See :func:`pydl.functional.avg_pool2d` and :class:`torch.nn.AvgPool2d`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(
            input,
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
            backend=self.backend,
        )
