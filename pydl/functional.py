"""The operators with the names, argument order and defaults of :mod:`torch.nn.functional`, and
``backend=``.

Every function takes ``backend=None`` last, by keyword: the name of the backend that must serve this
call (``auto``, ``reference``, ``aten``, ``cpu``, ``triton``, ``cuda``); None leaves the choice to
``use_backend`` and, without that, to the dispatch table. A backend asked for by name that cannot
serve raises RuntimeError; an unknown name raises ValueError.
"""

from collections.abc import Sequence

import torch

from pydl.ops import conv as _conv
from pydl.ops import lrn as _lrn
from pydl.ops import pool as _pool

__all__ = ["avg_pool2d", "conv2d", "local_response_norm", "max_pool2d", "max_pool2d_with_indices"]


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
        stride: of the window, one integer or one an axis.
        padding: zeros on both sides, one integer or one an axis; ``'valid'`` none; ``'same'`` keeps
            H and W (stride 1 only; an odd total puts the extra zero on the right).
        dilation: the distance between the window's taps.
        groups: input and output channels are split into so many groups that do not see each other.
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
    return _conv.conv(2, input, weight, bias, stride, padding, dilation, groups, backend)


def max_pool2d(
    input: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """2-D max pooling: each output is the largest value in a window of its channel.

    Padding is -inf. A NaN in the window wins. On ties the first in scan order is taken, and gets
    the gradient. Training keeps one byte an output (the place in the window), inference nothing,
    where PyTorch keeps eight.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        kernel_size, stride, padding, dilation: one integer or one an axis; stride is kernel_size
            where it is None; padding is at most half of the window.
        ceil_mode: also take windows that reach beyond the right edge, if they start inside the
            input or its left padding.
        return_indices: also return the places of the maxima.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the input's layout; with ``return_indices`` also the int64
        positions, of the same
        shape, flat in the H * W plane of each channel.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`conv2d`.

    Source: PyTorch's ``max_pool2d``.
    """
    return _pool.max_pool(
        2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, backend
    )


def max_pool2d_with_indices(
    input: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = True,
    *,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`max_pool2d` with its indices, whatever ``return_indices`` says, as PyTorch's."""
    return _pool.max_pool(
        2, input, kernel_size, stride, padding, dilation, ceil_mode, True, backend
    )


def avg_pool2d(
    input: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D average pooling: each output is the mean of a window of its channel.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        kernel_size, stride, padding: one integer or one an axis; stride is kernel_size where it is
            None; padding (zeros) is at most half of the window.
        ceil_mode: as :func:`max_pool2d`; what such a window holds beyond input and padding is not
            counted.
        count_include_pad: count the padding in the divisor.
        divisor_override: divide by this instead; not zero.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the input's layout.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`conv2d`.

    Source: PyTorch's ``avg_pool2d``.
    """
    return _pool.avg_pool(
        2,
        input,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        backend,
    )


def local_response_norm(
    input: torch.Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Local response normalisation across channels: x / (k + alpha / size * sum of x^2 over
    ``size`` channels)^beta.

    alpha is divided by ``size`` always, edges included, as PyTorch does; the AlexNet paper and
    TensorFlow do not divide, so an alpha of theirs is ``alpha * size`` here. An even ``size`` looks
    at one channel more below than above.

    Args:
        input: (N, C, ...) with at least three axes; float32, float64, float16 or bfloat16.
        size: the number of channels in the window.
        alpha, beta, k: as in the formula.
        backend: see the module.

    Returns:
        A tensor like the input.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`conv2d`; ValueError also for fewer than three
            axes.

    Source: Krizhevsky, Sutskever, Hinton 2012, section 3.3; PyTorch's ``local_response_norm``.
    """
    return _lrn.local_response_norm(input, size, alpha, beta, k, backend)
