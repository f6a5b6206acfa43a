"""Convolution layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pydl import functional
from pydl.entry import held
from pydl.nn.layer import Layer
from pydl.ops.bias_act import ACTIVATIONS


def _padded(
    module: _ConvNd, input: torch.Tensor
) -> tuple[torch.Tensor, str | int | tuple[int, ...]]:
    """The input, padded already where the mode is not zeros, and the padding still to do."""
    if module.padding_mode == "zeros":
        return input, module.padding
    sides = module._reversed_padding_repeated_twice
    return torch.nn.functional.pad(input, sides, mode=module.padding_mode), 0


# Its base is that of the layer it is mixed into.
if TYPE_CHECKING:
    _Plain = _ConvNd
else:
    _Plain = object


class _Conv(Layer, _Plain):
    """What Conv1d, Conv2d and Conv3d share: the call."""

    def _conv_forward(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        padding: str | int | tuple[int, ...] = self.padding
        if self.padding_mode != "zeros":
            input, padding = _padded(self, input)
        return _CONVOLVED[weight.ndim](
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            backend=self._pydl_backend,
        )


_CONVOLVED = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


class Conv1d(_Conv, torch.nn.Conv1d):
    """See :func:`pydl.functional.conv1d` and :class:`torch.nn.Conv1d`.

    >>> pydl.nn.Conv1d(3, 8, 3)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 8, 8])
    """


class Conv2d(_Conv, torch.nn.Conv2d):
    """See :func:`pydl.functional.conv2d` and :class:`torch.nn.Conv2d`.

    >>> pydl.nn.Conv2d(3, 8, 3)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 8, 10, 8])
    """


class Conv3d(_Conv, torch.nn.Conv3d):
    """See :func:`pydl.functional.conv3d` and :class:`torch.nn.Conv3d`.

    >>> pydl.nn.Conv3d(3, 8, 3)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 8, 2, 10, 8])
    """


# Its base is that of the layer it is mixed into.
if TYPE_CHECKING:
    _Transposed = _ConvTransposeNd
else:
    _Transposed = object


class _ConvTranspose(Layer, _Transposed):
    """What ConvTranspose1d, ConvTranspose2d and ConvTranspose3d share: the call."""

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        axes = len(self.kernel_size)
        output_padding: Sequence[int] = self.output_padding
        if output_size is not None:
            how: Any = self.stride, self.padding, self.kernel_size, axes, self.dilation
            output_padding = self._output_padding(input, output_size, *how)
        return _TRANSPOSED[axes](
            input,
            held(self, "weight"),
            held(self, "bias"),
            self.stride,
            self.padding,  # type: ignore[arg-type]
            output_padding,
            self.groups,
            self.dilation,
            backend=self._pydl_backend,
        )


_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """See :func:`pydl.functional.conv_transpose1d` and :class:`torch.nn.ConvTranspose1d`.

    >>> pydl.nn.ConvTranspose1d(3, 8, 2, stride=2)(torch.randn(2, 3, 10)).shape
    torch.Size([2, 8, 20])
    """


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """See :func:`pydl.functional.conv_transpose2d` and :class:`torch.nn.ConvTranspose2d`.

    >>> pydl.nn.ConvTranspose2d(3, 8, 2, stride=2)(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 8, 24, 20])
    """


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    """See :func:`pydl.functional.conv_transpose3d` and :class:`torch.nn.ConvTranspose3d`.

    >>> pydl.nn.ConvTranspose3d(3, 8, 2, stride=2)(torch.randn(2, 3, 4, 12, 10)).shape
    torch.Size([2, 8, 8, 24, 20])
    """


class ConvBiasAct2d(Conv2d):
    """A 2-D convolution with its activation and, if one is given, a residual.

    ``state_dict`` and initial weights are those of :class:`torch.nn.Conv2d`. See
    :func:`pydl.functional.conv2d_bias_act`.

    Args:
        activation: ``none``, ``relu``, ``leaky_relu`` or ``silu``.
        negative_slope: of ``leaky_relu``.
        args, kwargs: as :class:`torch.nn.Conv2d`, and ``backend``.

    >>> pydl.nn.ConvBiasAct2d(3, 8, 3, activation="relu")(torch.randn(2, 3, 12, 10)).shape
    torch.Size([2, 8, 10, 8])
    """

    def __init__(
        self, *args, activation: str = "relu", negative_slope: float = 0.01, **kwargs
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        super().__init__(*args, **kwargs)
        self.activation, self.negative_slope = activation, negative_slope

    def forward(self, input: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        input, padding = _padded(self, input)
        return functional.conv2d_bias_act(
            input,
            self.weight,
            self.bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            self.activation,
            self.negative_slope,
            residual,
            backend=self._pydl_backend,
        )

    def extra_repr(self) -> str:
        slope = f", negative_slope={self.negative_slope}" * (self.activation == "leaky_relu")
        return f"{super().extra_repr()}, activation={self.activation!r}{slope}"


# Each becomes its counterpart above when the first input tells the number of channels; that first
# call already goes through the counterpart's methods, which come before torch.nn's. A parameter has
# another type before that call, which torch.nn's own lazy layers do not get past a type checker.


class LazyConv1d(Conv1d, torch.nn.LazyConv1d):  # type: ignore[misc]
    """See :class:`torch.nn.LazyConv1d`; becomes a :class:`Conv1d`.

    >>> layer = pydl.nn.LazyConv1d(8, 3)
    >>> y = layer(torch.randn(2, 3, 10))
    >>> layer
    Conv1d(3, 8, kernel_size=(3,), stride=(1,))
    """

    cls_to_become = Conv1d


class LazyConv2d(Conv2d, torch.nn.LazyConv2d):  # type: ignore[misc]
    """See :class:`torch.nn.LazyConv2d`; becomes a :class:`Conv2d`.

    >>> layer = pydl.nn.LazyConv2d(8, 3)
    >>> y = layer(torch.randn(2, 3, 12, 10))
    >>> layer
    Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    """

    cls_to_become = Conv2d


class LazyConv3d(Conv3d, torch.nn.LazyConv3d):  # type: ignore[misc]
    """See :class:`torch.nn.LazyConv3d`; becomes a :class:`Conv3d`.

    >>> layer = pydl.nn.LazyConv3d(8, 3)
    >>> y = layer(torch.randn(2, 3, 4, 12, 10))
    >>> layer
    Conv3d(3, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1))
    """

    cls_to_become = Conv3d


class LazyConvTranspose1d(ConvTranspose1d, torch.nn.LazyConvTranspose1d):  # type: ignore[misc]
    """See :class:`torch.nn.LazyConvTranspose1d`; becomes a :class:`ConvTranspose1d`.

    >>> layer = pydl.nn.LazyConvTranspose1d(8, 3)
    >>> y = layer(torch.randn(2, 3, 10))
    >>> layer
    ConvTranspose1d(3, 8, kernel_size=(3,), stride=(1,))
    """

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(ConvTranspose2d, torch.nn.LazyConvTranspose2d):  # type: ignore[misc]
    """See :class:`torch.nn.LazyConvTranspose2d`; becomes a :class:`ConvTranspose2d`.

    >>> layer = pydl.nn.LazyConvTranspose2d(8, 3)
    >>> y = layer(torch.randn(2, 3, 12, 10))
    >>> layer
    ConvTranspose2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
    """

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(ConvTranspose3d, torch.nn.LazyConvTranspose3d):  # type: ignore[misc]
    """See :class:`torch.nn.LazyConvTranspose3d`; becomes a :class:`ConvTranspose3d`.

    >>> layer = pydl.nn.LazyConvTranspose3d(8, 3)
    >>> y = layer(torch.randn(2, 3, 4, 12, 10))
    >>> layer
    ConvTranspose3d(3, 8, kernel_size=(3, 3, 3), stride=(1, 1, 1))
    """

    cls_to_become = ConvTranspose3d
