"""Convolutions by oneDNN of weights that are kept in its own layout, with what follows them.

PyTorch's convolution makes that layout anew at each call, which takes an eighth to a third of the
time of a large weight on a small map. A single small map, of 20,480 numbers or fewer, it unfolds
and multiplies instead. Residual and activation are passes of their own behind either; oneDNN
applies them to what it has just summed, as it does in graphs that PyTorch compiles.

Channels last that pays with any weight. Contiguous maps oneDNN would write channels last here, and
only a large weight makes up for the copy that puts that right.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pydl.contract.conv import memory_format
from pydl.shapes import conv_size

LARGE = 500_000  # numbers of a weight that is worth it for contiguous maps

_convolution = torch.ops.mkldnn._convolution_pointwise
# What PyTorch's operator calls the activations, and what it wants to know of them.
_UNARY: dict[str, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
    "silu": ("swish", []),
    "hardswish": ("hardswish", []),
}


class Prepared(NamedTuple):
    """A weight in oneDNN's layout, and what the convolution by it is given and makes."""

    weight: Tensor
    window: tuple[Any, ...]  # padding, stride, dilation, groups
    shape: tuple[int, ...]  # of the result
    format: torch.memory_format  # of the result

    def convolve(
        self, x: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
    ) -> tuple[Tensor, bool]:
        """The convolution of ``x``, and whether the residual and the activation are in it."""
        given = self.weight, bias, *self.window
        if residual is not None and self._takes(residual) and activation in ("none", "relu"):
            name = None if activation == "none" else activation
            y = _convolution.binary(x, residual, *given, "add", 1.0, name, [], None)
            return y, True
        at_once = residual is None and activation in _UNARY
        y = _convolution(x, *given, *_UNARY[activation if at_once else "none"], "")
        return y.contiguous(memory_format=self.format), at_once

    def _takes(self, residual: Tensor) -> bool:
        return (
            self.format is torch.channels_last
            and residual.shape == self.shape
            and residual.dtype == torch.float32
            and not (torch.is_grad_enabled() and residual.requires_grad)
        )


class Weights:
    """Keeps a weight (F, C, kernel...) prepared for the maps that come."""

    def __init__(self, weight: Any, bias: Tensor | None) -> None:
        self.given: tuple[Tensor, Tensor | None] = weight, bias
        self.prepared: Prepared | None = None
        self.geometry: tuple = ()  # of the map that came last, and of the convolution
        self.times = 0  # it came, one after the other

    def prepared_for(self, x: Tensor, conv: Any) -> Prepared | None:
        """The weight for the map ``x`` (N, C, spatial...); None where PyTorch's own convolution is
        to serve. It is prepared when maps of one shape come twice, since one that comes once is not
        worth it."""
        if (torch.is_grad_enabled() and x.requires_grad) or not torch._C._get_mkldnn_enabled():
            return None
        geometry = x.shape, x.stride(), x.dtype, conv.padding, conv.stride, conv.dilation
        if geometry != self.geometry:
            self.geometry, self.prepared, self.times = geometry, None, 0
        if self.times < 2:
            self.times += 1
            if self.times == 2:
                self.prepared = self._prepare(x, conv)
        return self.prepared

    def _prepare(self, x: Tensor, conv: Any) -> Prepared | None:
        weight, bias = self.given
        if not isinstance(conv, nn.Conv2d) or conv.groups != 1 or conv.padding_mode != "zeros":
            return None
        if isinstance(conv.padding, str) or x.ndim != 4 or not x.is_cpu or x.numel() == 0:
            return None
        if x.dtype != torch.float32 or weight.dtype != torch.float32:
            return None
        format = memory_format(x, weight)
        is_last = format is torch.channels_last
        if not is_last and weight.numel() < LARGE:
            return None
        window = conv.stride, conv.padding, conv.dilation
        server = torch._C._select_conv_backend(x, weight, bias, *window, False, (0, 0), 1, None)
        if server.name != "Mkldnn" and not (is_last and server.name == "Slow2d"):
            return None
        with torch.inference_mode(False), torch.no_grad():
            made = torch.ops.mkldnn._reorder_convolution_weight(
                weight, conv.padding, conv.stride, conv.dilation, 1, x.shape
            )
        size = conv_size(x.shape[2:], conv.kernel_size, *window)
        order = conv.padding, conv.stride, conv.dilation, 1
        return Prepared(made, order, torch.Size((len(x), len(weight), *size)), format)
