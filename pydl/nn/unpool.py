"""Max unpooling layers."""

from collections.abc import Sequence

import torch

from pydl import functional
from pydl.nn.layer import Layer


class _MaxUnpool(Layer):
    """What MaxUnpool1d, MaxUnpool2d and MaxUnpool3d share: the call."""

    def forward(
        self,
        input: torch.Tensor,
        indices: torch.Tensor,
        output_size: Sequence[int] | None = None,
    ) -> torch.Tensor:
        unpool = getattr(functional, f"max_unpool{self.axes}d")
        window = self.kernel_size, self.stride, self.padding, output_size
        return unpool(input, indices, *window, backend=self.backend)


class MaxUnpool1d(_MaxUnpool, torch.nn.MaxUnpool1d):
    """See :func:`pydl.functional.max_unpool1d` and :class:`torch.nn.MaxUnpool1d`."""

    axes = 1


class MaxUnpool2d(_MaxUnpool, torch.nn.MaxUnpool2d):
    """See :func:`pydl.functional.max_unpool2d` and :class:`torch.nn.MaxUnpool2d`."""

    axes = 2


class MaxUnpool3d(_MaxUnpool, torch.nn.MaxUnpool3d):
    """See :func:`pydl.functional.max_unpool3d` and :class:`torch.nn.MaxUnpool3d`."""

    axes = 3
