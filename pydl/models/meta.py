"""Networks on PyTorch's ``meta`` device: built and run for their shapes alone, without memory.

There PyTorch works most operators out in Python, for which it imports its compiler. That takes
seconds, and a network of a thousand layers takes some more; the shapes of most layers' outputs are
known without.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules import batchnorm, conv
from torch.overrides import TorchFunctionMode

from pydl.nn import BatchNormAct2d

# What first weights are made with. Each fills its first argument in place and returns it.
_FILLS = {
    getattr(torch.Tensor, name)
    for name in ("normal_", "uniform_", "zero_", "fill_", "erfinv_", "mul_", "add_", "clamp_")
} | {getattr(nn.init, name) for name in ("uniform_", "normal_", "constant_", "kaiming_uniform_")}

_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_NORMS = (batchnorm._BatchNorm, BatchNormAct2d)
_SAME = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.LocalResponseNorm)
_KNOWN = (conv._ConvNd, nn.Linear, nn.AdaptiveAvgPool2d, *_POOLS, *_NORMS, *_SAME)


class _NothingDrawn(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, given: tuple = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if function in _FILLS:
            filled = given[0] if given else named["tensor"]
            if filled.is_meta:
                return filled
        return function(*given, **named)


def hollow(build: Callable[[], nn.Module]) -> nn.Module:
    """What ``build`` makes, on the ``meta`` device, in evaluation mode; no weights are drawn."""
    with torch.device("meta"), _NothingDrawn(), _copied(conv._ConvNd), _copied(batchnorm._NormBase):
        return build().eval()


@contextlib.contextmanager
def _copied(kind: type[nn.Module]) -> Iterator[None]:
    """Lets a layer of this kind that is built with the arguments of an earlier one be a copy of it,
    with tensors of its own, inside the ``with`` block."""
    build = kind.__init__
    built: dict[tuple, dict[str, Any]] = {}

    def __init__(self: nn.Module, *given: Any, **named: Any) -> None:
        arguments = type(self), given, tuple(named.items())
        if arguments not in built:
            build(self, *given, **named)
            built[arguments] = _copy(vars(self))
        else:
            vars(self).update(_copy(built[arguments]))

    kind.__init__ = __init__  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__init__ = build  # type: ignore[method-assign]


def _copy(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a layer without children."""
    made: dict[str, Any] = {
        name: value.copy() if isinstance(value, (dict, set)) else value
        for name, value in attributes.items()
    }
    with torch._C.DisableTorchFunction():
        for kind in ("_parameters", "_buffers"):
            for name, tensor in made[kind].items():
                if tensor is not None:
                    own = tensor.detach()
                    made[kind][name] = nn.Parameter(own) if kind == "_parameters" else own
    return made


@contextlib.contextmanager
def shapes_alone(model: nn.Module) -> Iterator[None]:
    """Lets the commonest layers of ``model`` give outputs of their shapes on the ``meta`` device
    without a run, inside the ``with`` block.

    A layer runs as ever where gradients are recorded, and where its input does not fit: it then
    raises what it raises. Hooks are called in any case.
    """
    wrapped: list[Any] = [
        layer
        for layer in model.modules()
        if isinstance(layer, _KNOWN) and "forward" not in vars(layer)
    ]
    for layer in wrapped:
        vars(layer)["forward"] = _short(layer)  # past nn.Module's slow way of setting
    try:
        yield
    finally:
        for layer in wrapped:
            del vars(layer)["forward"]


def _short(layer: nn.Module) -> Callable[..., Any]:
    run = layer.forward

    def forward(*inputs: Any, **named: Any) -> Any:
        x = inputs[0] if inputs else named["input"]
        with torch._C.DisableTorchFunction():  # a mode would be told of each attribute
            if x.is_meta and not torch.is_grad_enabled():
                shape = _shape(layer, x.shape)
                if shape is not None:
                    return torch.empty(shape, dtype=x.dtype, device=x.device)
        return run(*inputs, **named)

    return forward


def _shape(layer: Any, shape: torch.Size) -> tuple[int, ...] | None:
    """Of the output; None where that is not for this function to say, as the input does not fit."""
    if isinstance(layer, _SAME):
        return shape
    if isinstance(layer, nn.Linear):
        return (*shape[:-1], layer.out_features) if shape[-1:] == (layer.in_features,) else None
    if isinstance(layer, _NORMS):
        return shape if shape[1:2] == (layer.num_features,) else None
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        bins = _twice(layer.output_size)
        return (*shape[:2], *bins) if len(shape) == 4 and None not in bins else None
    if isinstance(layer, _POOLS):
        if len(shape) != 4 or getattr(layer, "return_indices", False):
            return None
        window = layer.kernel_size, layer.stride, layer.padding, getattr(layer, "dilation", 1)
        sizes = _slid(shape[2:], tuple(map(_twice, window)), layer.ceil_mode)
        return (*shape[:2], *sizes) if min(sizes) > 0 else None
    axes = len(layer.kernel_size)
    known = not layer.transposed and not isinstance(layer.padding, str)
    if not known or len(shape) != axes + 2 or shape[1] != layer.in_channels:
        return None
    window = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    sizes = _slid(shape[2:], window)
    return (shape[0], layer.out_channels, *sizes) if min(sizes) > 0 else None


def _twice(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value, value)


def _slid(shape: Sequence[int], window: tuple, up: bool = False) -> list[int]:
    """How often a window (size, stride, padding, dilation) fits along each axis. Rounded up, each
    must begin in the input or in the padding before it."""
    found = []
    for n, k, s, p, d in zip(shape, *window, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1) * up) // s + 1
        found.append(count - (up and (count - 1) * s >= n + p))
    return found
