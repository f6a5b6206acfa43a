"""What a forward written from a graph calls in place of layers that are computed together.

Each asks anew whether a gradient is wanted and whether the normalisation is by the batch, so one
graph serves training, evaluation and whatever mixes them: a frozen normalisation in a network that
learns, a gradient by an image in evaluation.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pydl import asked, dispatch, functional
from pydl.aten.bias_act import finish
from pydl.contract.conv import conv_size
from pydl.fusion import folding
from pydl.nn.batch_norm import normalised as by_norm
from pydl.ops import batch_norm, bias_act

# The activations beside those of pydl.ops: by name how, and whether the gradient is told by the
# result, which is then written over what it is of.
_OTHERS: dict[str, tuple[Callable[..., Tensor], bool]] = {
    "relu6": (nn.functional.relu6, True),
    "silu": (nn.functional.silu, False),
    "hardswish": (nn.functional.hardswish, False),
}


def convolved(
    x: Tensor, conv: Any, residual: Tensor | None, norm: Any, activation: str, slope: float
) -> Tensor:
    """activation(norm(conv(x)) + residual), where ``norm`` and ``residual`` may be None.

    Where ``norm`` goes by its running statistics and neither it nor ``conv`` wants a gradient, by a
    weight and a bias of the convolution that do both.
    """
    weight, bias = conv.weight, conv.bias
    if norm is not None:
        folded = None
        if norm.training:
            folding.forget(norm)
        elif _is_open(conv) and _is_open(norm):
            folded = folding.folded(conv, norm)
        if folded is None:
            return normalised(conv(x), residual, norm, activation, slope)
        weight, bias = folded
    if _in_one(x, conv, residual, activation):
        window = conv.stride, conv.padding, conv.dilation, conv.groups
        return functional.conv2d_bias_act(x, weight, bias, *window, activation, slope, residual)
    return _finished(conv._conv_forward(x, weight, bias), residual, activation, slope)


def normalised(
    x: Tensor, residual: Tensor | None, norm: Any, activation: str, slope: float
) -> Tensor:
    """activation(norm(x) + residual), where ``residual`` may be None."""
    norm._check_input_dim(x)
    backend = norm._pydl_backend if hasattr(norm, "_pydl_backend") else None
    if activation not in batch_norm.ACTIVATIONS or not _fits(residual, x):
        return _finished(by_norm(norm, backend, x), residual, activation, slope)
    return by_norm(norm, backend, x, activation, slope, residual)


def activated(x: Tensor, activation: str, slope: float) -> Tensor:
    """activation(x) of what nobody else holds."""
    return _finished(x, None, activation, slope)


STEPS = (convolved, normalised, activated)


def _is_open(layer: Any) -> bool:
    """Whether nobody has said which backend is to serve the layer."""
    return layer.__dict__.get("_pydl_backend") is None and asked.backend(None) == "auto"


def _in_one(x: Tensor, conv: Any, residual: Tensor | None, activation: str) -> bool:
    """Whether a kernel may be the fastest that convolves and activates."""
    if not isinstance(conv, nn.Conv2d) or conv.padding_mode != "zeros" or not _is_open(conv):
        return False
    if activation not in bias_act.ACTIVATIONS:
        return False
    if residual is not None:  # which has to have the result's shape there
        if isinstance(conv.padding, str) or x.ndim != 4 or residual.dtype != x.dtype:
            return False
        window = conv.kernel_size, conv.stride, conv.padding, conv.dilation
        if residual.shape != (len(x), conv.out_channels, *conv_size(x.shape[2:], *window)):
            return False
    return dispatch.exactly or not dispatch.is_pytorchs(dispatch.bounds("conv_bias_act"), x)


def _fits(residual: Tensor | None, y: Tensor) -> bool:
    """Whether the sum has the shape and dtype of ``y``."""
    return residual is None or (residual.shape == y.shape and residual.dtype == y.dtype)


def _finished(y: Tensor, residual: Tensor | None, activation: str, slope: float) -> Tensor:
    """activation(y + residual), in the place of ``y`` where its gradient does not need it."""
    if residual is not None and not _fits(residual, y):
        y, residual = y + residual, None
    if activation not in _OTHERS:
        return finish(y, residual, activation, slope)
    function, by_result = _OTHERS[activation]
    y = finish(y, residual, "none", 0.0)
    return function(y, inplace=by_result or not y.requires_grad)
