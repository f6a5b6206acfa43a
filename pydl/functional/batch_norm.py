"""Batch normalisation."""

import torch

from pydl.functional.overridable import overridable
from pydl.ops import batch_norm as ops


@overridable
def batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """Batch normalisation: (x - mean) / sqrt(var + eps) * weight + bias, with a mean and a
    variance per channel.

    Training takes both from the batch (the biased variance) and moves the running statistics, in
    place, towards them (the unbiased variance): running = (1 - momentum) running + momentum batch.
    Inference takes the running ones. Statistics are computed and kept in float32 (float64 for
    float64). Differentiable twice in input, weight and bias.

    Args:
        input: (N, C) or (N, C, ...); float32, float64, float16 or bfloat16.
        running_mean, running_var: (C) or None; needed in inference. Of the input's dtype, or
            float32 where that is a half.
        weight, bias: (C) or None, of the dtype of the running statistics.
        training: whether to normalise by the batch.
        momentum: the weight of the new statistics.
        eps: added to the variance; positive in training.
        backend: see the module.

    Returns:
        A tensor like the input, in its layout.

    Raises:
        TypeError, RuntimeError: as :func:`pydl.functional.conv2d`.
        ValueError: training with one value per channel, an eps that is not positive, or one running
            statistic without the other; or there is no such backend.

    Source: Ioffe and Szegedy 2015, algorithms 1 and 2; PyTorch's ``batch_norm``.
    """
    return ops.batch_norm(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        "none",
        0.0,
        None,
        backend=backend,
    )


@overridable
def batch_norm_act(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str = "relu",
    negative_slope: float = 0.01,
    residual: torch.Tensor | None = None,
    *,
    backend: str | None = None,
) -> torch.Tensor:
    """:func:`batch_norm`, a residual and an activation in the same pass: activation(batch_norm(x) +
    residual).

    Training keeps the input and one bit per output for its backward, where separate operators keep
    the normalised map, the sum or the result as well.

    Equivalent to: ``relu(batch_norm(input, running_mean, running_var, weight, bias, training,
    momentum, eps) + residual)``, or another activation.

    Args:
        input, running_mean, running_var, weight, bias, training, momentum, eps: as
            :func:`batch_norm`.
        activation: ``none``, ``relu`` or ``leaky_relu``.
        negative_slope: of ``leaky_relu``.
        residual: a tensor like the input, or None.
        backend: see the module.

    Returns:
        A tensor like the input, in its layout.

    Raises:
        TypeError, RuntimeError, ValueError: as :func:`batch_norm`; ValueError also for another
            activation.

    Source: He et al. 2016, figure 2, where residual blocks end like this.
    """
    return ops.batch_norm(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        activation,
        negative_slope,
        residual,
        backend=backend,
    )
