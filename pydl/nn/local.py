"""Locally connected layers."""

import math
from collections.abc import Sequence

import torch

from pydl import functional
from pydl.entry import held
from pydl.nn.layer import Layer, with_backend
from pydl.ops import checks
from pydl.shapes import conv_size


class _LocallyConnected(Layer, torch.nn.Module):
    """Parameters ``weight`` (F, C, kernel..., output...) and ``bias`` (F, output...); both are
    drawn from U(-b, b) with b = 1 / sqrt(C * taps), as a convolution's do.

    Args:
        in_channels: C.
        out_channels: F.
        input_size: of the maps, an int or one per axis: the output has as many filters as it
            has positions, so it must be known.
        kernel_size, stride, padding, dilation: as a convolution's; padding in numbers.
        bias: whether there is one.
        device, dtype: of the parameters.
        backend: the backend that must serve the layer; None leaves the choice open.

    Raises:
        ValueError: no position fits, or there is no such backend.
    """

    axes: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        input_size: int | Sequence[int],
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        backend: str | None = None,
    ) -> None:
        super().__init__(backend=backend)
        name, axes = type(self).__name__, self.axes
        self.in_channels, self.out_channels = in_channels, out_channels
        self.input_size = checks.axes(name, "input_size", input_size, axes, least=1)
        self.kernel_size = checks.axes(name, "kernel_size", kernel_size, axes, least=1)
        self.stride = checks.axes(name, "stride", stride, axes, least=1)
        self.padding = checks.axes(name, "padding", padding, axes, least=0)
        self.dilation = checks.axes(name, "dilation", dilation, axes, least=1)
        sizes = conv_size(
            self.input_size, self.kernel_size, self.stride, self.padding, self.dilation
        )
        if min(sizes) < 1:
            raise ValueError(
                f"{name}: a kernel of {self.kernel_size} with dilation {self.dilation} does not "
                f"fit an input of {self.input_size} with padding {self.padding}"
            )
        shape = (out_channels, in_channels, *self.kernel_size, *sizes)
        self.weight = torch.nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        if bias:
            made = torch.empty((out_channels, *sizes), device=device, dtype=dtype)
            self.bias = torch.nn.Parameter(made)
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights and biases."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        for parameter in self.parameters(recurse=False):
            torch.nn.init.uniform_(parameter, -bound, bound)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weights = held(self, "weight"), held(self, "bias")
        window = (self.stride, self.padding, self.dilation)
        return _CONNECTED[self.axes](input, *weights, *window, backend=self._pydl_backend)

    def extra_repr(self) -> str:
        said = (
            f"{self.in_channels}, {self.out_channels}, input_size={self.input_size}, "
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, bias={self.bias is not None}"
        )
        return with_backend(self, said)


_CONNECTED = {axes: getattr(functional, f"locally_connected{axes}d") for axes in (1, 2)}


class LocallyConnected1d(_LocallyConnected):
    """See :func:`pydl.functional.locally_connected1d`.

    Shape: (N, C, L) or (C, L) to (N, F, OL) or (F, OL).

    >>> pydl.nn.LocallyConnected1d(3, 8, 10, 3)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 8, 8])
    """

    __doc__ = f"{__doc__}\n    {_LocallyConnected.__doc__}"
    axes = 1


class LocallyConnected2d(_LocallyConnected):
    """See :func:`pydl.functional.locally_connected2d`.

    Shape: (N, C, H, W) or (C, H, W) to (N, F, OH, OW) or (F, OH, OW).

    >>> pydl.nn.LocallyConnected2d(3, 8, (12, 10), 3)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 8, 10, 8])
    """

    __doc__ = f"{__doc__}\n    {_LocallyConnected.__doc__}"
    axes = 2
