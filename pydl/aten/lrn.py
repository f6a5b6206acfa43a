"""PyTorch's local response normalisation, and its gradient by PyTorch's autograd."""

import torch


def lrn_forward(x: torch.Tensor, size: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)


def lrn_backward(
    grad_y: torch.Tensor, x: torch.Tensor, size: int, alpha: float, beta: float, k: float
) -> torch.Tensor:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (grad_x,) = torch.autograd.grad(lrn_forward(leaf, size, alpha, beta, k), leaf, grad_y)
    return grad_x
