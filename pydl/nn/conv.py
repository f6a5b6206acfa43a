"""Convolution layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer
from pydl.ops.bias_act import ACTIVATIONS


class _Conv(Layer):
    """What Conv1d, Conv2d and Conv3d share: the padding modes and the call."""

    def _padded(self, input: torch.Tensor) -> tuple[torch.Tensor, str | int | tuple[int, ...]]:
        """The input, padded already where the mode is not zeros, and the padding still to do."""
        if self.padding_mode == "zeros":
            return input, self.padding
        sides = self._reversed_padding_repeated_twice
        return torch.nn.functional.pad(input, sides, mode=self.padding_mode), 0

    def _conv_forward(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        input, padding = self._padded(input)
        conv = getattr(functional, f"conv{len(self.kernel_size)}d")
        window = (self.stride, padding, self.dilation, self.groups)
        return conv(input, weight, bias, *window, backend=self.backend)


class Conv1d(_Conv, torch.nn.Conv1d):
    """See :func:`pydl.functional.conv1d` and :class:`torch.nn.Conv1d`."""


class Conv2d(_Conv, torch.nn.Conv2d):
    """See :func:`pydl.functional.conv2d` and :class:`torch.nn.Conv2d`."""


class Conv3d(_Conv, torch.nn.Conv3d):
    """See :func:`pydl.functional.conv3d` and :class:`torch.nn.Conv3d`."""


class _ConvTranspose(Layer):
    """What ConvTranspose1d, ConvTranspose2d and ConvTranspose3d share: the call."""

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        axes = len(self.kernel_size)
        output_padding = self._output_padding(
            input,
            output_size,
            self.stride,
            self.padding,
            self.kernel_size,
            axes,
            self.dilation,
        )
        return getattr(functional, f"conv_transpose{axes}d")(
            input,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            output_padding,
            self.groups,
            self.dilation,
            backend=self.backend,
        )


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """See :func:`pydl.functional.conv_transpose1d` and :class:`torch.nn.ConvTranspose1d`."""


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """See :func:`pydl.functional.conv_transpose2d` and :class:`torch.nn.ConvTranspose2d`."""


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    """See :func:`pydl.functional.conv_transpose3d` and :class:`torch.nn.ConvTranspose3d`."""


class ConvBiasAct2d(Conv2d):
    """A 2-D convolution with its activation and, if one is given, a residual.

    ``state_dict`` and initial weights are those of :class:`torch.nn.Conv2d`. See
    :func:`pydl.functional.conv2d_bias_act`.

    Args:
        activation: ``none``, ``relu``, ``leaky_relu`` or ``silu``.
        negative_slope: of ``leaky_relu``.
        args, kwargs: as :class:`torch.nn.Conv2d`, and ``backend``.
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
        input, padding = self._padded(input)
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
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        slope = f", negative_slope={self.negative_slope}" * (self.activation == "leaky_relu")
        return f"{super().extra_repr()}, activation={self.activation!r}{slope}"


# Each becomes its counterpart above when the first input tells the number of channels; that first
# call already goes through the counterpart's methods, which come before torch.nn's.


class LazyConv1d(Conv1d, torch.nn.LazyConv1d):
    """See :class:`torch.nn.LazyConv1d`; becomes a :class:`Conv1d`."""

    cls_to_become = Conv1d


class LazyConv2d(Conv2d, torch.nn.LazyConv2d):
    """See :class:`torch.nn.LazyConv2d`; becomes a :class:`Conv2d`."""

    cls_to_become = Conv2d


class LazyConv3d(Conv3d, torch.nn.LazyConv3d):
    """See :class:`torch.nn.LazyConv3d`; becomes a :class:`Conv3d`."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(ConvTranspose1d, torch.nn.LazyConvTranspose1d):
    """See :class:`torch.nn.LazyConvTranspose1d`; becomes a :class:`ConvTranspose1d`."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(ConvTranspose2d, torch.nn.LazyConvTranspose2d):
    """See :class:`torch.nn.LazyConvTranspose2d`; becomes a :class:`ConvTranspose2d`."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(ConvTranspose3d, torch.nn.LazyConvTranspose3d):
    """See :class:`torch.nn.LazyConvTranspose3d`; becomes a :class:`ConvTranspose3d`."""

    cls_to_become = ConvTranspose3d
