"""Softmax."""

import warnings

import torch

from pydl import plan
from pydl.functional.overridable import overridable
from pydl.ops import softmax as ops


@overridable
def softmax(
    input: torch.Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Softmax along one axis: exp(x) over the sum of exp(x) along ``dim``.

    The largest element is subtracted first, so no exponential overflows. -inf gives 0; a row of
    -inf alone, or with a NaN or +inf in it, gives NaN. Any axis of a contiguous tensor is served
    in place, without a transposed copy.

    Args:
        input: any shape; float32, float64, float16 or bfloat16.
        dim: the axis; None is PyTorch's deprecated choice (0 for 0, 1 or 3 axes, else 1).
        dtype: the input is converted to it first.
        backend: see the module.

    Returns:
        A contiguous tensor of the input's shape.

    Raises:
        IndexError: there is no such axis.
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.

    Source: PyTorch's ``softmax``.
    """
    return ops.softmax(
        "softmax", input, _axis("softmax", input, dim, _stacklevel), dtype, False, backend
    )


@overridable
def log_softmax(
    input: torch.Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """The logarithm of :func:`softmax`, without the rounding that taking the logarithm of a
    probability near 1 costs: x minus the largest element minus the log of the sum of exponentials.

    Arguments, results and errors as :func:`softmax`.
    """
    return ops.softmax(
        "log_softmax", input, _axis("log_softmax", input, dim, _stacklevel), dtype, True, backend
    )


def _axis(name: str, input: torch.Tensor, dim: int | None, stacklevel: int) -> int:
    if dim is not None or not isinstance(input, torch.Tensor):
        return 0 if dim is None else dim
    plan.never()  # says so each time
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
        "dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if input.ndim in (0, 1, 3) else 1
