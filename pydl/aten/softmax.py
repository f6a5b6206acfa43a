"""PyTorch's softmax and log softmax, and their gradients."""

import torch

from pydl.contract.softmax import SoftmaxBackward, SoftmaxForward

aten = torch.ops.aten


def softmax_forward(call: SoftmaxForward) -> torch.Tensor:
    x, dim, log = call
    return aten._log_softmax(x, dim, False) if log else aten._softmax(x, dim, False)


def softmax_backward(call: SoftmaxBackward) -> torch.Tensor:
    grad_y, y, dim, log = call
    backward = aten._log_softmax_backward_data if log else aten._softmax_backward_data
    return backward(grad_y, y, dim, y.dtype)
