"""What a forward written from a graph calls in place of layers that are computed together.

Each asks anew whether a gradient is wanted and whether the normalisation is by the batch, so one
graph serves training, evaluation and whatever mixes them: a frozen normalisation in a network that
learns, a gradient by an image in evaluation.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from pydl import asked, dispatch, functional
from pydl.aten.bias_act import finish
from pydl.fusion import folding
from pydl.layout import channels_last
from pydl.nn.batch_norm import normalised as by_norm
from pydl.ops import batch_norm, bias_act
from pydl.shapes import conv_size

# The activations beside those of pydl.ops: by name how, and whether the gradient is told by the
# result, which is then written over what it is of.
_OTHERS: dict[str, tuple[Callable[..., Tensor], bool]] = {
    "relu6": (nn.functional.relu6, True),
    "silu": (nn.functional.silu, False),
    "hardswish": (nn.functional.hardswish, False),
}


Step = Callable[..., Tensor]
# What is told of each step and its arguments before it runs; None: nobody.
told: Callable[[Step, tuple], None] | None = None


def _step(compute: Step) -> Step:
    @functools.wraps(compute)
    def step(*given: Any) -> Tensor:
        if told is not None:
            told(step, given)
        return compute(*given)

    return step


@_step
def convolved(
    x: Tensor, conv: Any, residual: Tensor | None, norm: Any, activation: str, slope: float
) -> Tensor:
    """activation(norm(conv(x)) + residual), where ``norm`` and ``residual`` may be None.

    Where ``norm`` goes by its running statistics and neither it nor ``conv`` wants a gradient, by a
    weight and a bias of the convolution that do both.
    """
    is_open, known = _is_open(conv), None
    if norm is None:
        weight, bias = conv.weight, conv.bias
        if is_open and channels_last(x):
            known = folding.folded(conv, None)
    else:
        if norm.training:
            folding.forget(norm)
        elif is_open and norm.__dict__.get("_pydl_backend") is None:
            known = folding.folded(conv, norm)
        if known is None:
            return _normalised(conv(x), residual, norm, activation, slope)
        weight, bias = known.weights.given
    prepared = None if known is None else known.weights.prepared_for(x, conv)
    if prepared is not None:
        y, is_finished = prepared.convolve(x, bias, residual, activation)
        return y if is_finished else _finished(y, residual, activation, slope)
    if is_open and _in_one(x, conv, residual, activation):
        window = conv.stride, conv.padding, conv.dilation, conv.groups
        return functional.conv2d_bias_act(x, weight, bias, *window, activation, slope, residual)
    return _finished(conv._conv_forward(x, weight, bias), residual, activation, slope)


@_step
def normalised(
    x: Tensor, residual: Tensor | None, norm: Any, activation: str, slope: float
) -> Tensor:
    """activation(norm(x) + residual), where ``residual`` may be None."""
    return _normalised(x, residual, norm, activation, slope)


def _normalised(
    x: Tensor, residual: Tensor | None, norm: Any, activation: str, slope: float
) -> Tensor:
    norm._check_input_dim(x)
    backend = norm._pydl_backend if hasattr(norm, "_pydl_backend") else None
    if activation not in batch_norm.ACTIVATIONS or not _fits(residual, x):
        return _finished(by_norm(norm, backend, x), residual, activation, slope)
    return by_norm(norm, backend, x, activation, slope, residual)


@_step
def pooled(x: Tensor, pool: Any, activation: str, slope: float) -> Tensor:
    """activation(pool(x))."""
    return _finished(pool(x), None, activation, slope)


STEPS = (convolved, normalised, pooled)


@contextlib.contextmanager
def seen_by(see: Callable[[Step, tuple], None]) -> Iterator[None]:
    """Tells ``see`` of the steps inside the ``with`` block."""
    global told
    before, told = told, see
    try:
        yield
    finally:
        told = before


def one_by_one(step: Step) -> Step:
    """What a step stands for, one layer after the other, as one would write it."""

    def convolve(x: Tensor, conv: Any, *rest: Any) -> Tensor:
        return normalise(conv(x), *rest)

    def normalise(x: Tensor, residual: Tensor | None, norm: Any, *activation: Any) -> Tensor:
        if hasattr(norm, "activation"):
            return norm(x, residual)
        y = x if norm is None else norm(x)
        return activate(y if residual is None else y.add_(residual), *activation)

    def pool(x: Tensor, layer: Any, *activation: Any) -> Tensor:
        return layer(activate(x, *activation))

    def activate(y: Tensor, activation: str, slope: float) -> Tensor:
        if activation == "leaky_relu":
            return nn.functional.leaky_relu(y, slope, inplace=True)
        return y if activation == "none" else getattr(nn.functional, activation)(y, inplace=True)

    one_by_one: dict[Step, Step] = {convolved: convolve, normalised: normalise, pooled: pool}
    return one_by_one[step]


# By whether a convolution has groups; a table that is read again fills them.
_IN_ONE = {
    False: dispatch.bounds("conv_bias_act"),
    True: dispatch.bounds("depthwise_bias_act"),
}


def _is_open(layer: Any) -> bool:
    """Whether nobody has said which backend is to serve the layer."""
    return layer.__dict__.get("_pydl_backend") is None and asked.backend(None) == "auto"


def _in_one(x: Tensor, conv: Any, residual: Tensor | None, activation: str) -> bool:
    """Whether a kernel may be the fastest that convolves and activates."""
    if not dispatch.exactly and dispatch.is_pytorchs(_IN_ONE[conv.groups > 1], x):
        return False
    if not isinstance(conv, nn.Conv2d) or conv.padding_mode != "zeros":
        return False
    if activation not in bias_act.ACTIVATIONS:
        return False
    if residual is not None:  # which has to have the result's shape there
        if isinstance(conv.padding, str) or x.ndim != 4 or residual.dtype != x.dtype:
            return False
        window = conv.kernel_size, conv.stride, conv.padding, conv.dilation
        if residual.shape != (len(x), conv.out_channels, *conv_size(x.shape[2:], *window)):
            return False
    return True


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
