"""Locally connected layers by PyTorch's unfolding and products of matrices; 1-D and 2-D."""

from collections.abc import Sequence

import torch
from torch.nn.functional import fold, unfold


def _two(values: Sequence[int], absent: int) -> tuple[int, int]:
    """Two axes' values; a map of one axis is a map of height 1."""
    if len(values) > 2:
        raise NotImplementedError(
            "PyTorch unfolds maps of one or two axes; locally connected layers over three need "
            "another backend"
        )
    return (absent, *values) if len(values) == 1 else tuple(values)


def _unfolded(
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """What each output reads: (N, C * taps, positions)."""
    window = _two(kernel_size, 1), _two(dilation, 1), _two(padding, 0), _two(stride, 1)
    return unfold(x.unsqueeze(2) if x.ndim == 3 else x, *window)


def local_forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    read = _unfolded(x, kernel_size, stride, padding, dilation)
    y = torch.einsum("nkp,fkp->nfp", read, weight.flatten(2)).unflatten(2, weight.shape[2:])
    return y if bias is None else y + bias


def local_grad_input(
    grad_y: torch.Tensor,
    weight: torch.Tensor,
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    window = _two(kernel_size, 1), _two(dilation, 1), _two(padding, 0), _two(stride, 1)
    shares = torch.einsum("nfp,fkp->nkp", grad_y.flatten(2), weight.flatten(2))
    grad_x = fold(shares, _two(input_size, 1), *window)
    return grad_x.squeeze(2) if len(input_size) == 1 else grad_x


def local_grad_weight(
    grad_y: torch.Tensor,
    x: torch.Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    read = _unfolded(x, kernel_size, stride, padding, dilation)
    return torch.einsum("nfp,nkp->fkp", grad_y.flatten(2), read).unflatten(2, grad_y.shape[2:])
