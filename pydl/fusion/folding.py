"""A normalisation by running statistics folded into the convolution before it.

norm(conv(x)) = (w * x + b - mean) s + beta with s = gamma / sqrt(var + eps), which is a convolution
by w s and (b - mean) s + beta. These are copies, kept for as long as what they were made of is the
same. Whether it is, three things say:

- each tensor's version counter and address, which whatever autograd knows of changes: a step of an
  optimiser, ``load_state_dict``, an operation in place, a move to another device or dtype;
- the numbers themselves of what has one per channel, and one in :data:`STEP` of the weight's, for
  what is written behind autograd's back: through ``.data``, NumPy, or by a kernel;
- a call in training mode, or with gradients, between: after it all is folded anew.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

STEP = 1021  # a prime, so that no size of a filter keeps pace with it

Vectors = tuple[Tensor, Tensor]


@dataclass
class _Folded:
    marks: tuple
    seen: list[tuple[Tensor, Tensor]]  # numbers where they are, and as they were
    made: Vectors

    def is_fresh(self) -> bool:
        return all(torch.equal(now, before) for now, before in self.seen)


_FOLDED: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()


def folded(conv: Any, norm: Any) -> Vectors | None:
    """The weight and the bias that do both; None where the layers' own are to be used: they want
    gradients, are computed at each call, are of another dtype than float32 or float64, or there are
    no running statistics."""
    weight, bias = conv._parameters.get("weight"), conv._parameters.get("bias")
    if weight is None or (bias is None and conv.bias is not None):
        return None
    vectors = bias, norm.weight, norm.bias, norm.running_mean, norm.running_var
    given = [weight, *(one for one in vectors if one is not None)]
    if norm.running_mean is None or norm.running_var is None or not _foldable(given):
        forget(norm)
        return None
    marks = norm.eps, *[(one._version, one.data_ptr()) for one in given]
    known = _FOLDED.get(norm)
    if known is not None and known.marks == marks and known.is_fresh():
        return known.made
    with torch.inference_mode(False), torch.no_grad():
        seen = [one.detach() for one in (*given[1:], _some(weight))]
        made = _fold(weight, norm.eps, *vectors)
        _FOLDED[norm] = _Folded(marks, [(one, one.clone()) for one in seen], made)
    return made


def forget(norm: nn.Module) -> None:
    """Lets what ``norm`` is in be folded anew."""
    _FOLDED.pop(norm, None)


def _foldable(given: list[Tensor]) -> bool:
    weight, grad = given[0], torch.is_grad_enabled()
    return weight.dtype in (torch.float32, torch.float64) and all(
        type(one) in (Tensor, nn.Parameter)
        and one.dtype == weight.dtype
        and one.device == weight.device
        and not one.is_meta
        and not one.is_inference()
        and not (grad and one.requires_grad)
        for one in given
    )


def _some(weight: Tensor) -> Tensor:
    """One in so many numbers of a weight without gaps in memory; of another, all."""
    if not torch.ops.aten.is_non_overlapping_and_dense(weight):
        return weight
    count = -(-weight.numel() // STEP)
    return weight.detach().as_strided((count,), (STEP,))


def _fold(
    weight: Tensor,
    eps: float,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor,
    var: Tensor,
) -> Vectors:
    scale = (var.double() + eps).rsqrt()
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    shift = shift if beta is None else shift + beta
    each = scale.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
    return weight * each, shift.to(weight.dtype)
