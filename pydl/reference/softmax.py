"""Softmax along one axis and its logarithm from their definition (csrc/softmax.h)."""

import torch

from pydl.contract.softmax import SoftmaxBackward, SoftmaxForward
from pydl.reference import in_full_precision


def centred(x: torch.Tensor, dim: int) -> torch.Tensor:
    """x minus its largest element along ``dim``, which is a constant to a derivative: softmax does
    not depend on it."""
    return x - x.detach().amax(dim, keepdim=True) if x.numel() else x


@in_full_precision
def softmax_forward(call: SoftmaxForward) -> torch.Tensor:
    """exp(x) over its sum along ``dim``, or the logarithm of that."""
    x, dim, log = call
    z = centred(x, dim)
    total = z.exp().sum(dim, keepdim=True)
    return z - total.log() if log else z.exp() / total


@in_full_precision
def softmax_backward(call: SoftmaxBackward) -> torch.Tensor:
    """y (grad_y - sum of grad_y y); of the logarithm, grad_y - exp(y) sum of grad_y."""
    grad_y, y, dim, log = call
    if log:
        return grad_y - y.exp() * grad_y.sum(dim, keepdim=True)
    return y * (grad_y - (grad_y * y).sum(dim, keepdim=True))
