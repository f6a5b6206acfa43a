"""A normalisation by running statistics folded into the convolution before it.

norm(conv(x)) = (w * x + b - mean) s + beta with s = gamma / sqrt(var + eps), which is a convolution
by w s and (b - mean) s + beta. These are copies, as is the weight of a convolution alone that is
prepared for oneDNN (onednn.py), kept for as long as what they were made of is the same. Whether it
is, three things say:

- each tensor's version counter and address, which whatever autograd knows of changes: a step of an
  optimiser, ``load_state_dict``, an operation in place, a move to another device or dtype;
- the numbers themselves of what has one per channel, and some of the weight's, for
  what is written behind autograd's back: through ``.data``, NumPy, or by a kernel;
- a call in training mode, or with gradients, between: after it all is folded anew.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pydl.extension import library
from pydl.fusion.onednn import Weights

LOOKED_AT = 17  # numbers of a weight; reading more costs a page and a cache line each


@dataclass
class Folded:
    """What was made, and of what: tensors with their versions, addresses and numbers, those of
    another device than the CPU, or with gaps in memory, as copies."""

    weights: Weights
    eps: float
    watched: Any
    copies: list[tuple[Tensor, Tensor]]

    def is_of(self, given: tuple[Tensor | None, ...], eps: float) -> bool:
        """Whether it would be made of these tensors, as they are, again."""
        if eps != self.eps or not self.watched.same(given):
            return False
        return all(torch.equal(now, before) for now, before in self.copies)


_FOLDED: dict[int, Folded | None] = {}  # by the id of a layer that lives


def folded(conv: Any, norm: Any) -> Folded | None:
    """The weight and the bias that do both, or the convolution's where ``norm`` is None. None where
    the layers themselves are to be used: they want gradients, their parameters are computed at each
    call or of another dtype than float32 or float64, or there are no running statistics."""
    layer, eps, own = conv, 0.0, conv._parameters
    every: tuple[Tensor | None, ...] = own.get("weight"), own.get("bias")
    if norm is not None:
        layer, eps, by, kept = norm, norm.eps, norm._parameters, norm._buffers
        every += by.get("weight"), by.get("bias"), kept.get("running_mean"), kept.get("running_var")
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in every):
        forget(layer)
        return None
    known = _FOLDED.get(id(layer))
    if known is not None and known.is_of(every, eps):
        return known
    if not _foldable(conv, norm, every):
        forget(layer)
        return None
    with torch.inference_mode(False), torch.no_grad():
        weights = Weights(*(every if norm is None else _fold(eps, every)))
        pieces, copies = _numbers(every)
    if id(layer) not in _FOLDED:
        weakref.finalize(layer, _FOLDED.pop, id(layer)).atexit = False
    made = Folded(weights, eps, library("cpu").Watched(every, pieces), copies)
    _FOLDED[id(layer)] = made
    return made


def forget(layer: nn.Module) -> None:
    """Lets what the normalisation, or the convolution alone, is in be made anew."""
    if id(layer) in _FOLDED:
        _FOLDED[id(layer)] = None


def _of(layer: Any, name: str) -> Tensor | None:
    return layer._parameters.get(name)


def _foldable(conv: Any, norm: Any, every: tuple[Tensor | None, ...]) -> bool:
    weight, bias, *of_norm = every
    if weight is None or weight.dtype not in (torch.float32, torch.float64) or weight.is_meta:
        return False
    if conv.bias is not bias:
        return False  # computed at each call
    if norm is not None:
        gamma, beta, mean, var = of_norm
        if mean is None or var is None or norm.weight is not gamma or norm.bias is not beta:
            return False
    return all(
        type(one) in (Tensor, nn.Parameter, nn.Buffer)
        and one.dtype == weight.dtype
        and one.device == weight.device
        and not one.is_inference()
        for one in every
        if one is not None
    )


def _numbers(
    every: tuple[Tensor | None, ...],
) -> tuple[list[tuple[int, int, int, int]], list[tuple[Tensor, Tensor]]]:
    """Which numbers of the weight and of the vectors are looked at: where they lie in memory
    (address, bytes of one, how many, bytes between), or a copy."""
    pieces, copies = [], []
    for i, one in enumerate(every):
        if one is None:
            continue
        size, count, step = one.element_size(), one.numel(), 1
        if not one.is_cpu or not torch.ops.aten.is_non_overlapping_and_dense(one):
            copies.append((one.detach(), one.detach().clone()))
        elif i == 0 and count > LOOKED_AT:
            step = (count - 1) // (LOOKED_AT - 1)
            pieces.append((one.data_ptr(), size, LOOKED_AT, step * size))
        elif count:
            pieces.append((one.data_ptr(), size * count, 1, 0))
    return pieces, copies


def _fold(eps: float, every: Any) -> tuple[Tensor, Tensor]:
    weight, bias, gamma, beta, mean, var = every
    scale = (var.double() + eps).rsqrt()
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    shift = shift if beta is None else shift + beta
    each = scale.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
    return weight * each, shift.to(weight.dtype)
