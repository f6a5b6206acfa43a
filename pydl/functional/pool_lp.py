"""Power-average pooling."""

from collections.abc import Sequence

import torch

from pydl.functional.overridable import overridable
from pydl.ops import pool_lp as ops


@overridable
def lp_pool1d(
    input: torch.Tensor,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """1-D power-average pooling of (N, C, L) or (C, L): see :func:`lp_pool2d`."""
    return ops.lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode, backend)


@overridable
def lp_pool2d(
    input: torch.Tensor,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """2-D power-average pooling: each output is the ``norm_type``-norm of a window of its channel,
    (sum x^p)^(1 / p); L2 pooling with 2.

    Like PyTorch's it takes no absolute value: an odd p adds signed powers, and the root of a
    negative sum is NaN. The gradient of a window whose sum is 0 is 0. Training keeps the input and
    a copy of the output, where PyTorch's chain of operators keeps five more maps.

    Args:
        input: (N, C, H, W) or (C, H, W); float32, float64, float16 or bfloat16.
        norm_type: p, not 0; infinite ones are max pooling of the magnitudes, or min pooling.
        kernel_size, stride: an int or one per axis; stride is kernel_size where it is None.
        ceil_mode: also take windows that reach beyond the right edge, if they start inside the
            input; the mean of what they hold counts for a whole window.
        backend: see the module.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in the layout of PyTorch's.

    Raises:
        ZeroDivisionError: ``norm_type`` is 0.
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``lp_pool2d``; Sermanet et al. 2012.
    """
    return ops.lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode, backend)


@overridable
def lp_pool3d(
    input: torch.Tensor,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    ceil_mode: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """3-D power-average pooling of (N, C, D, H, W) or (C, D, H, W): see :func:`lp_pool2d`."""
    return ops.lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode, backend)
