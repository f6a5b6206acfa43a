"""Dropout from its definition (csrc/dropout.h), Philox in tensors of 64-bit integers."""

import torch

from pydl import layout
from pydl.contract.dropout import DropoutBackward, DropoutForward
from pydl.reference import in_full_precision

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def _product(a: torch.Tensor, b: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and the lower 32 bits of a product of two 32-bit numbers: halves of b apart, so
    that nothing exceeds a signed 64-bit number."""
    low, high = a * (b & 0xFFFF), a * (b >> 16)
    middle = low + ((high & 0xFFFF) << 16)
    return (high >> 16) + (middle >> 32), middle & _LOW


def philox(counter: list[torch.Tensor], key: list[int]) -> list[torch.Tensor]:
    """Philox4x32-10: four words of 32 bits in int64 for a counter of four and a key of two."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return [c0, c1, c2, c3]


def _factors(like: torch.Tensor, p: float, seed: torch.Tensor) -> torch.Tensor:
    """1 / (1 - p) where an element of the dense map ``like`` is kept, 0 where not."""
    block = torch.arange((like.numel() + 3) // 4, device=like.device)
    zero = torch.zeros_like(block)
    value = int(seed)
    words = philox([block & _LOW, block >> 32, zero, zero], [value & _LOW, value >> 32 & _LOW])
    kept = torch.stack(words, 1).flatten()[: like.numel()] >= int(min(p * 2**32, 2**32 - 1))
    factors = torch.empty_like(like)
    layout.line(factors).copy_(kept.to(like.dtype) * (1 / (1 - p) if p < 1 else 0))
    return factors


@in_full_precision
def dropout_forward(call: DropoutForward) -> torch.Tensor:
    """x / (1 - p) where Philox's word is at least p 2^32, x * 0 elsewhere."""
    x, p, seed = call
    return x * _factors(layout.dense(x), p, seed)


@in_full_precision
def dropout_backward(call: DropoutBackward) -> torch.Tensor:
    """The same of a gradient, its elements counted in the order of the forward's result."""
    grad_y, p, seed, channels_last = call
    return grad_y * _factors(layout.ordered(grad_y, channels_last), p, seed)
