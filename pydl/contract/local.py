"""Locally connected layers over one to three axes (csrc/local.h has the definition)."""

import math
from typing import NamedTuple

import torch

from pydl import layout
from pydl.contract.call import Ints, Sizes, Tensor


def _contiguous(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return layout.empty(shape, like, layout=torch.contiguous_format)


class LocalForward(NamedTuple):
    x: Tensor  # (N, C, in...)
    weight: Tensor  # (F, C * taps, out...)
    bias: Tensor | None  # (F, out...)
    kernel_size: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def results(self) -> Tensor:
        """y (N, F, out...), contiguous."""
        filters, _, *spatial = self.weight.shape
        return _contiguous((self.x.shape[0], filters, *spatial), self.x)


class LocalGradInput(NamedTuple):
    grad_y: Tensor  # (N, F, out...)
    weight: Tensor  # (F, C * taps, out...)
    input_size: Sizes
    kernel_size: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def results(self) -> Tensor:
        """grad_x (N, C, in...), contiguous."""
        channels = self.weight.shape[1] // math.prod(self.kernel_size)
        return _contiguous((self.grad_y.shape[0], channels, *self.input_size), self.grad_y)


class LocalGradWeight(NamedTuple):
    grad_y: Tensor  # (N, F, out...)
    x: Tensor  # (N, C, in...)
    kernel_size: Ints
    stride: Ints
    padding: Ints
    dilation: Ints

    def results(self) -> Tensor:
        """grad_weight (F, C * taps, out...), contiguous."""
        _, filters, *spatial = self.grad_y.shape
        rows = self.x.shape[1] * math.prod(self.kernel_size)
        return _contiguous((filters, rows, *spatial), self.x)
