"""PyTorch's convolution (cuDNN, oneDNN) and its gradients."""

from collections.abc import Sequence

import torch

from pydl.aten.bias_act import bias_act_forward
from pydl.contract.bias_act import BiasActForward
from pydl.contract.conv import ConvForward, ConvGradBias, ConvGradInput, ConvGradWeight

aten = torch.ops.aten


def conv_forward(call: ConvForward) -> torch.Tensor:
    y = aten.convolution(
        call.x,
        call.weight,
        call.bias,
        call.stride,
        call.padding,
        call.dilation,
        False,
        [0] * len(call.stride),
        call.groups,
    )
    return bias_act_forward(BiasActForward(y, None, call.residual, call.activation, call.slope))


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


def conv_grad_input(call: ConvGradInput) -> torch.Tensor:
    grad_y, weight, input_size, stride, padding, dilation, groups = call
    x = grad_y.new_empty(1).expand(
        grad_y.shape[0], weight.shape[1] * groups, *input_size
    )  # only its shape counts
    return _backward(grad_y, x, weight, stride, padding, dilation, groups, [True, False, False])[0]


def conv_grad_weight(call: ConvGradWeight) -> torch.Tensor:
    grad_y, x, kernel_size, stride, padding, dilation, groups = call
    weight = x.new_empty(1).expand(
        grad_y.shape[1], x.shape[1] // groups, *kernel_size
    )  # only its shape counts
    return _backward(grad_y, x, weight, stride, padding, dilation, groups, [False, True, False])[1]


def conv_grad_bias(call: ConvGradBias) -> torch.Tensor:
    grad_y = call.grad_y
    return grad_y.sum((0, *range(2, grad_y.ndim)))
