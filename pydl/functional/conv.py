"""Convolution, transposed convolution, and convolution with an epilogue."""

from collections.abc import Sequence

import torch

from pydl.functional.overridable import overridable
from pydl.ops import conv as ops


@overridable
def conv1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """1-D convolution of (N, C, L) or (C, L) with a weight (F, C / groups, K): :func:`conv2d` over
    L."""
    return ops.conv(1, input, weight, bias, stride, padding, dilation, groups, backend)


@overridable
def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D convolution (cross-correlation): each output is a filter's inner product with a window of
    the input.

    out = floor((n + 2 padding - dilation (kernel - 1) - 1) / stride) + 1 along H and W. Sums are
    made in float32 (float64 for float64). Differentiable to any order in input, weight and bias.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        weight: (F, C / groups, KH, KW), of the input's dtype and device.
        bias: (F) or None.
        stride: of the window, an int or one per axis.
        padding: zeros on both sides, an int or one per axis; ``'valid'`` none; ``'same'`` keeps
            H and W (stride 1 only; an odd total puts the extra zero on the right).
        dilation: the distance between the window's taps.
        groups: input and output channels are split into this many groups, which do not see each
            other.
        backend: see the module.

    Returns:
        (N, F, OH, OW) or (F, OH, OW), channels last where input or weight is.

    Raises:
        TypeError: an argument is not a tensor, or not an integer.
        RuntimeError: shapes, dtypes or devices do not fit together, the output would be empty, or
            the backend cannot serve.
        ValueError: there is no such backend.

    Source: LeCun et al. 1998, section II; PyTorch's ``conv2d``.
    """
    return ops.conv(2, input, weight, bias, stride, padding, dilation, groups, backend)


@overridable
def conv3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """3-D convolution of (N, C, D, H, W) or (C, D, H, W) with a weight (F, C / groups, KD, KH, KW):
    :func:`conv2d` over D, H and W."""
    return ops.conv(3, input, weight, bias, stride, padding, dilation, groups, backend)


@overridable
def conv_transpose1d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """1-D transposed convolution of (N, C, L) or (C, L) with a weight (C, F / groups, K): see
    :func:`conv_transpose2d`."""
    return ops.conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, backend
    )


@overridable
def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D transposed convolution: the data gradient of :func:`conv2d` as an operator, which grows
    a map by ``stride``.

    out = (n - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1 along H and W.
    Differentiable to any order in input, weight and bias.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        weight: (C, F / groups, KH, KW), of the input's dtype and device.
        bias: (F) or None.
        stride: by which the map grows, an int or one per axis.
        padding: rows and columns taken away on both sides.
        output_padding: rows and columns added on the right side; smaller than stride or dilation.
        groups: input and output channels are split into this many groups, which do not see each
            other.
        dilation: the distance between the window's taps.
        backend: see the module.

    Returns:
        (N, F, OH, OW) or (F, OH, OW), channels last where input or weight is.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`conv2d`.

    Source: Zeiler et al. 2010, Deconvolutional networks; PyTorch's ``conv_transpose2d``.
    """
    return ops.conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, backend
    )


@overridable
def conv_transpose3d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """3-D transposed convolution of (N, C, D, H, W) or (C, D, H, W) with a weight (C, F / groups,
    KD, KH, KW): see :func:`conv_transpose2d`."""
    return ops.conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, backend
    )


@overridable
def conv2d_bias_act(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "relu",
    negative_slope: float = 0.01,
    residual: torch.Tensor | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """activation(conv2d(input, weight, bias) + residual), the map written once.

    Kernels on a GPU and the native depthwise ones finish an output before they store it; on a CPU
    a dense product is PyTorch's own and one native pass over it does the rest. Differentiable to
    any order in input, weight, bias and residual. Training keeps the result (silu: what goes into
    it) and no mask.

    Equivalent to: ``relu(conv2d(input, weight, bias, stride, padding, dilation, groups) +
    residual)``, or another activation.

    Args:
        input, weight, bias, stride, padding, dilation, groups: as :func:`conv2d`.
        activation: ``none``, ``relu``, ``leaky_relu`` or ``silu``.
        negative_slope: of ``leaky_relu``.
        residual: of the result's shape, dtype and device, or None.
        backend: see the module.

    Returns:
        As :func:`conv2d`.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`conv2d`; ValueError also for an unknown
            activation.

    Source: He et al. 2016, Deep residual learning, figure 2 (residual); Maas et al. 2013 (leaky
        ReLU); Elfwing et al. 2018 (SiLU).
    """
    return ops.conv_bias_act(
        2,
        input,
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        activation,
        negative_slope,
        residual,
        backend,
    )
