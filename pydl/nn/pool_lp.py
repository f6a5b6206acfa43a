"""Power-average pooling layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class LPPool1d(Layer, torch.nn.LPPool1d):
    """See :func:`pydl.functional.lp_pool1d` and :class:`torch.nn.LPPool1d`.

    >>> pydl.nn.LPPool1d(2, kernel_size=2)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 3, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        window = float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        return functional.lp_pool1d(input, *window, backend=self._pydl_backend)


class LPPool2d(Layer, torch.nn.LPPool2d):
    """See :func:`pydl.functional.lp_pool2d` and :class:`torch.nn.LPPool2d`.

    >>> pydl.nn.LPPool2d(2, kernel_size=2)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 3, 6, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        window = float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        return functional.lp_pool2d(input, *window, backend=self._pydl_backend)


class LPPool3d(Layer, torch.nn.LPPool3d):
    """See :func:`pydl.functional.lp_pool3d` and :class:`torch.nn.LPPool3d`.

    >>> pydl.nn.LPPool3d(2, kernel_size=2)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 3, 2, 6, 5])
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        window = float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        return functional.lp_pool3d(input, *window, backend=self._pydl_backend)
