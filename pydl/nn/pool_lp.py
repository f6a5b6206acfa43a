"""Power-average pooling layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class _LPPool(Layer):
    """What LPPool1d, LPPool2d and LPPool3d share: the call."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        pool = getattr(functional, f"lp_pool{self.axes}d")
        window = float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        return pool(input, *window, backend=self.backend)


class LPPool1d(_LPPool, torch.nn.LPPool1d):
    """See :func:`pydl.functional.lp_pool1d` and :class:`torch.nn.LPPool1d`."""

    axes = 1


class LPPool2d(_LPPool, torch.nn.LPPool2d):
    """See :func:`pydl.functional.lp_pool2d` and :class:`torch.nn.LPPool2d`."""

    axes = 2


class LPPool3d(_LPPool, torch.nn.LPPool3d):
    """See :func:`pydl.functional.lp_pool3d` and :class:`torch.nn.LPPool3d`."""

    axes = 3
