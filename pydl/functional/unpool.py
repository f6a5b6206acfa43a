"""Max unpooling."""

from collections.abc import Sequence

import torch

from pydl.functional.overridable import overridable
from pydl.ops import unpool as ops


@overridable
def max_unpool1d(
    input: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """1-D max unpooling of (N, C, L) or (C, L): see :func:`max_unpool2d`."""
    window = kernel_size, stride, padding, output_size
    return ops.max_unpool(1, input, indices, *window, backend)


@overridable
def max_unpool2d(
    input: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D max unpooling: puts every value back where :func:`max_pool2d` found it, with zeros
    elsewhere.

    Where windows overlapped, two values may name one place: here the last in scan order stays, on
    every backend and in every run; PyTorch leaves that open. Every value that named a place gets
    the gradient of the place.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        indices: as the input, int64: what :func:`max_pool2d` returned with ``return_indices``.
        kernel_size, stride, padding: of that pooling, an int or one per axis; stride is
            kernel_size where it is None.
        output_size: (OH, OW) or (N, C, OH, OW), less than a stride away from the size that the
            pooling's arguments give; says which one it was of the sizes that pool to the same
            result.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the layout of PyTorch's.

    Raises:
        ValueError: ``output_size`` does not fit.
        RuntimeError: an index is outside the output, or shapes differ.
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: Zeiler and Fergus 2014; PyTorch's ``max_unpool2d``.
    """
    window = kernel_size, stride, padding, output_size
    return ops.max_unpool(2, input, indices, *window, backend)


@overridable
def max_unpool3d(
    input: torch.Tensor,
    indices: torch.Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    output_size: Sequence[int] | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """3-D max unpooling of (N, C, D, H, W) or (C, D, H, W): see :func:`max_unpool2d`."""
    window = kernel_size, stride, padding, output_size
    return ops.max_unpool(3, input, indices, *window, backend)
