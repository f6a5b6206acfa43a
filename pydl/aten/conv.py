"""PyTorch's convolution (cuDNN, oneDNN) and its gradients."""

from collections.abc import Sequence

import torch

from pydl.aten.bias_act import bias_act_forward

aten = torch.ops.aten


def conv_forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    activation: str,
    slope: float,
) -> torch.Tensor:
    y = aten.convolution(
        x, weight, bias, stride, padding, dilation, False, [0] * len(stride), groups
    )
    return bias_act_forward(y, None, residual, activation, slope)


def _backward(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    mask: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    transposed, output_padding = False, [0] * len(stride)
    return aten.convolution_backward(
        grad_y, x, weight, None, stride, padding, dilation, transposed, output_padding, groups, mask
    )


def conv_grad_input(
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    x = grad_y.new_empty(1).expand(
        grad_y.shape[0], weight.shape[1] * groups, *input_size
    )  # only its shape counts
    return _backward(grad_y, x, weight, stride, padding, dilation, groups, [True, False, False])[0]


def conv_grad_weight(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> torch.Tensor:
    weight = x.new_empty(1).expand(
        grad_y.shape[1], x.shape[1] // groups, *kernel_size
    )  # only its shape counts
    return _backward(grad_y, x, weight, stride, padding, dilation, groups, [False, True, False])[1]


def conv_grad_bias(grad_y: torch.Tensor) -> torch.Tensor:
    return grad_y.sum((0, *range(2, grad_y.ndim)))
