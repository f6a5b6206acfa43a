"""Networks for images made into networks for clips: Carreira, Zisserman, "Quo Vadis, Action
Recognition? A New Model and the Kinetics Dataset", 2017, section 2.4.1."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from pydl import nn


def inflate(model: torch.nn.Module, taps: int = 3) -> torch.nn.Module:
    """A copy of a network for images (N, C, H, W) that takes clips (N, C, T, H, W).

    The weights of each convolution are repeated ``taps`` times along time and divided by ``taps``,
    so that of a clip that stands still the result is what the network gave of one of its frames.
    That holds at the ends of a clip too, for beyond them the first and the last frame go on. 1x1
    convolutions keep to their frame, and so do pools, until an adaptive pool or a ``Flatten`` takes
    the mean over all frames.

    Args:
        model: made of layers of this package or of PyTorch. What its ``forward`` calls besides must
            not count axes, as ``flatten(1)`` and ``cat(..., 1)`` do not.
        taps: frames that a window sees, an odd number.

    Raises:
        ValueError: the number is even, or a layer has no counterpart with three axes.
    """
    if taps < 1 or taps % 2 == 0:
        raise ValueError(f"taps must be an odd number of frames, got {taps}")
    return _inflated(copy.deepcopy(model), taps)


def _inflated(layer: torch.nn.Module, taps: int) -> torch.nn.Module:
    for kind, counterpart in _COUNTERPARTS.items():
        if isinstance(layer, kind):
            return counterpart(layer, taps).train(layer.training)
    if type(layer).__name__.endswith("2d"):
        raise ValueError(f"a {type(layer).__name__} has no counterpart that takes clips")
    for name, child in layer.named_children():
        setattr(layer, name, _inflated(child, taps))
    return layer


def _with(time: Any, size: Any) -> tuple:
    """A size along time before those along height and width."""
    return (time, *size) if isinstance(size, tuple) else (time, size, size)


def _convolution(layer: Any, taps: int) -> nn.Module:
    if isinstance(layer.padding, str):
        raise ValueError(f"a Conv2d with padding={layer.padding!r} has no counterpart")
    if layer.kernel_size == (1, 1):
        taps = 1
    made = nn.Conv3d(
        layer.in_channels,
        layer.out_channels,
        _with(taps, layer.kernel_size),
        _with(1, layer.stride),
        _with(0, layer.padding),
        _with(1, layer.dilation),
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        layer.weight.device,
        layer.weight.dtype,
    )
    repeated = layer.weight.detach().unsqueeze(2).repeat(1, 1, taps, 1, 1) / taps
    made.weight, made.bias = nn.Parameter(repeated), layer.bias
    if taps == 1:
        return made
    return nn.Sequential(nn.ReplicationPad3d((0, 0, 0, 0, taps // 2, taps // 2)), made)


def _convolution_act(layer: Any, taps: int) -> nn.Module:
    activation = {
        "none": nn.Identity(),
        "relu": nn.ReLU(),
        "leaky_relu": nn.LeakyReLU(layer.negative_slope),
        "silu": nn.SiLU(),
    }[layer.activation]
    return nn.Sequential(_convolution(layer, taps), activation)


def _max_pool(layer: Any, taps: int) -> nn.Module:
    window = _with(1, layer.kernel_size), _with(1, layer.stride), _with(0, layer.padding)
    return nn.MaxPool3d(*window, _with(1, layer.dilation), ceil_mode=layer.ceil_mode)


def _average_pool(layer: Any, taps: int) -> nn.Module:
    window = _with(1, layer.kernel_size), _with(1, layer.stride), _with(0, layer.padding)
    how = layer.ceil_mode, layer.count_include_pad, layer.divisor_override
    return nn.AvgPool3d(*window, *how)


def _norm(layer: Any, taps: int) -> nn.Module:
    how = layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    if isinstance(layer, nn.BatchNormAct2d):
        made: nn.Module = nn.BatchNormAct3d(
            *how, activation=layer.activation, negative_slope=layer.negative_slope
        )
    else:
        made = nn.BatchNorm3d(*how)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(made, name, getattr(layer, name))
    return made


def _flatten(layer: Any, taps: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool3d((1, None, None)), layer)


# By kind, the first that fits; kinds of torch.nn stand for those of this package too.
_COUNTERPARTS: dict[type, Callable[[Any, int], nn.Module]] = {
    nn.ConvBiasAct2d: _convolution_act,
    torch.nn.Conv2d: _convolution,
    torch.nn.MaxPool2d: _max_pool,
    torch.nn.AvgPool2d: _average_pool,
    torch.nn.AdaptiveAvgPool2d: lambda layer, taps: nn.AdaptiveAvgPool3d(
        _with(1, layer.output_size)
    ),
    torch.nn.BatchNorm2d: _norm,
    nn.BatchNormAct2d: _norm,
    torch.nn.Dropout2d: lambda layer, taps: nn.Dropout3d(layer.p),
    torch.nn.Flatten: _flatten,
}
