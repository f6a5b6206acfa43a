"""Max and average pooling."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, overload

import torch

from pydl.functional.overridable import overridable
from pydl.ops import pool as ops

Ints = int | Sequence[int]
Pair = tuple[torch.Tensor, torch.Tensor]


class _MaxPool(Protocol):
    """What a maximum returns, by ``return_indices``."""

    @overload
    def __call__(
        self,
        input: torch.Tensor,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: Literal[False] = False,
        *,
        backend: str | None = None,
    ) -> torch.Tensor: ...
    @overload
    def __call__(
        self,
        input: torch.Tensor,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        *,
        return_indices: Literal[True],
        backend: str | None = None,
    ) -> Pair: ...
    @overload
    def __call__(
        self,
        input: torch.Tensor,
        kernel_size: Ints,
        stride: Ints | None = None,
        padding: Ints = 0,
        dilation: Ints = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
        *,
        backend: str | None = None,
    ) -> torch.Tensor | Pair: ...


def _typed(function: Callable[..., Any]) -> _MaxPool:
    """The function itself, to a type checker with these three ways to call it."""
    return function


@_typed
@overridable
def max_pool1d(
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
    """1-D max pooling of (N, C, L) or (C, L): see :func:`max_pool2d`."""
    return ops.max_pool(
        1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, backend
    )


@_typed
@overridable
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
    the gradient. Training keeps one byte per output (the place in the window), inference nothing,
    where PyTorch keeps eight.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        kernel_size, stride, padding, dilation: an int or one per axis; stride is kernel_size
            where it is None; padding is at most half of the window.
        ceil_mode: also take windows that reach beyond the right edge, if they start inside the
            input or its left padding.
        return_indices: also return the places of the maxima.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the layout of PyTorch's; with ``return_indices`` also the
        int64 positions, of the same shape, flat in the H * W plane of each channel.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``max_pool2d``.
    """
    return ops.max_pool(
        2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, backend
    )


@_typed
@overridable
def max_pool3d(
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
    """3-D max pooling of (N, C, D, H, W) or (C, D, H, W): see :func:`max_pool2d`."""
    return ops.max_pool(
        3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, backend
    )


@overridable
def max_pool1d_with_indices(
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
    """:func:`max_pool1d` with its indices, whatever ``return_indices`` says, as in PyTorch."""
    return ops.max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, True, backend)


@overridable
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
    """:func:`max_pool2d` with its indices, whatever ``return_indices`` says, as in PyTorch."""
    return ops.max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, True, backend)


@overridable
def max_pool3d_with_indices(
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
    """:func:`max_pool3d` with its indices, whatever ``return_indices`` says, as in PyTorch."""
    return ops.max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, True, backend)


@overridable
def avg_pool1d(
    input: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """1-D average pooling of (N, C, L) or (C, L): see :func:`avg_pool2d`. As PyTorch's, it has no
    ``divisor_override``."""
    arguments = kernel_size, stride, padding, ceil_mode, count_include_pad, None
    return ops.avg_pool(1, input, *arguments, backend)


@overridable
def avg_pool2d(
    input: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D average pooling: each output is the mean of a window of its channel.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        kernel_size, stride, padding: an int or one per axis; stride is kernel_size where it is
            None; padding (zeros) is at most half of the window.
        ceil_mode: as :func:`max_pool2d`; what such a window holds beyond input and padding is not
            counted.
        count_include_pad: count the padding in the divisor.
        divisor_override: divide by this instead; not zero.
        out: where to write the result; only PyTorch's own operator does that, without gradients.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the layout of PyTorch's.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``avg_pool2d``.
    """
    arguments = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return ops.avg_pool(2, input, *arguments, backend, out)


@overridable
def avg_pool3d(
    input: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """3-D average pooling of (N, C, D, H, W) or (C, D, H, W): see :func:`avg_pool2d`."""
    arguments = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return ops.avg_pool(3, input, *arguments, backend, out)
