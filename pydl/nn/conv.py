"""Convolution layers."""

import torch

from pydl import functional
from pydl.nn.layer import Layer


class Conv2d(Layer, torch.nn.Conv2d):
    """See :func:`pydl.functional.conv2d` and :class:`torch.nn.Conv2d`."""

    def _conv_forward(
        self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = torch.nn.functional.pad(
                input, self._reversed_padding_repeated_twice, mode=self.padding_mode
            )
            padding = 0
        return functional.conv2d(
            input,
            weight,
            bias,
            self.stride,
            padding,
            self.dilation,
            self.groups,
            backend=self.backend,
        )
