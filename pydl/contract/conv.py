"""Convolution over one to three axes (csrc/conv.h has the definition)."""

from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Ints, Sizes, Tensor
from pydl.shapes import conv_size


def memory_format(x: Tensor, weight: Tensor) -> torch.memory_format:
    """The layout of what a convolution makes of a map and a weight: channels last where either
    is."""
    chosen = layout.memory_format(x)
    return layout.memory_format(weight) if chosen is torch.contiguous_format else chosen


class ConvForward(NamedTuple):
    """The convolution and its epilogue: + bias, + residual, activation."""

    x: Tensor  # (N, C, in...)
    weight: Tensor  # (F, C / groups, taps...)
    bias: Tensor | None  # (F,)
    residual: Tensor | None  # like y
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int
    activation: str
    slope: float

    def results(self) -> Tensor:
        """y (N, F, out...), channels last where the map or the weight is."""
        x, weight, *_ = self
        window = self.stride, self.padding, self.dilation
        spatial = conv_size(x.shape[2:], weight.shape[2:], *window)
        shape = (x.shape[0], weight.shape[0], *spatial)
        return layout.empty(shape, x, layout=memory_format(x, weight))


class ConvGradInput(NamedTuple):
    grad_y: Tensor  # (N, F, out...)
    weight: Tensor  # (F, C / groups, taps...)
    input_size: Sizes
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int

    def results(self) -> Tensor:
        """grad_x (N, C, in...), channels last where either operand is."""
        grad_y, weight = self.grad_y, self.weight
        shape = (grad_y.shape[0], weight.shape[1] * self.groups, *self.input_size)
        return layout.empty(shape, grad_y, layout=memory_format(grad_y, weight))


class ConvGradWeight(NamedTuple):
    grad_y: Tensor  # (N, F, out...)
    x: Tensor  # (N, C, in...)
    kernel_size: Sizes
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int

    def results(self) -> Tensor:
        """grad_weight (F, C / groups, taps...), contiguous; with one channel per group the strides
        say what the map is, and the memory is the same."""
        x = self.x
        channels = x.shape[1] // self.groups
        like = torch.contiguous_format if channels > 1 else layout.memory_format(x)
        return layout.empty((self.grad_y.shape[1], channels, *self.kernel_size), x, layout=like)


class ConvGradBias(NamedTuple):
    grad_y: Tensor  # (N, F, out...)

    def results(self) -> Tensor:
        """grad_bias (F,)."""
        return layout.empty((self.grad_y.shape[1],), self.grad_y)
