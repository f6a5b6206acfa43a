"""Activations without a convolution before them."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import bias_act as ops


@overridable
def relu(input: torch.Tensor, inplace: bool = False, *, backend: str | None = None) -> torch.Tensor:
    """max(x, 0); NaN stays NaN.

    Args:
        input: any shape; float32, float64, float16 or bfloat16.
        inplace: write the result to the input.
        backend: see the module.

    Returns:
        A tensor like the input, or the input.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`pydl.functional.conv2d`.
    """
    return ops.activate("relu", input, 0.0, inplace, backend)


@overridable
def leaky_relu(
    input: torch.Tensor,
    negative_slope: float = 0.01,
    inplace: bool = False,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """x where x > 0, else ``negative_slope`` x. Arguments, results and errors as :func:`relu`."""
    return ops.activate("leaky_relu", input, negative_slope, inplace, backend)
