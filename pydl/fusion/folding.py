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

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

STEP = 1021  # a prime, so that no size of a filter keeps pace with it
# From so many numbers on a weight is kept in oneDNN's own layout too: PyTorch makes it anew at each
# call, which takes an eighth to a third of the time (float32, one thread, AVX2: 256 to 1,024
# channels on maps of 7 to 28 pixels).
PACKED_FROM = 500_000

Vectors = tuple[Tensor, Tensor]


@dataclass
class _Folded:
    """What was made, and of what: each tensor with its version and address; the numbers looked at
    where they are, and as they were."""

    made: Vectors
    eps: float
    of: list[tuple[Tensor | None, int, int]]
    seen: list[tuple[Any, Any]]
    packed: dict[tuple, Tensor | None] = field(default_factory=dict)  # by the input's geometry

    def is_of(self, given: tuple[Tensor | None, ...], eps: float) -> bool:
        """Whether it would be made of these tensors, as they are, again."""
        if eps != self.eps:
            return False
        for one, (known, version, address) in zip(given, self.of, strict=True):
            if one is not known:
                return False
            if one is not None and (one._version != version or one.data_ptr() != address):
                return False
        for now, before in self.seen:
            if isinstance(now, np.ndarray):
                if now.tobytes() != before:
                    return False
            elif not torch.equal(now, before):
                return False
        return True


_FOLDED: WeakKeyDictionary[nn.Module, _Folded] = WeakKeyDictionary()


def folded(conv: Any, norm: Any) -> Vectors | None:
    """The weight and the bias that do both; None where the layers' own are to be used: they want
    gradients, are computed at each call, are of another dtype than float32 or float64, or there are
    no running statistics."""
    given = _of(conv, "weight"), _of(conv, "bias"), _of(norm, "weight"), _of(norm, "bias")
    statistics = norm._buffers.get("running_mean"), norm._buffers.get("running_var")
    every = *given, *statistics
    if torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in every):
        forget(norm)
        return None
    known = _FOLDED.get(norm)
    if known is not None and known.is_of(every, norm.eps):
        return known.made
    if not _foldable(conv, norm, *every):
        forget(norm)
        return None
    with torch.inference_mode(False), torch.no_grad():
        made = _fold(norm.eps, *every)
        of = [(one, 0, 0) if one is None else (one, one._version, one.data_ptr()) for one in every]
        looked_at = [_some(every[0]), *every[1:]]
        seen = [_kept(one.detach()) for one in looked_at if one is not None]
        _FOLDED[norm] = _Folded(made, norm.eps, of, seen)
    return made


def packed(x: Tensor, conv: Any, norm: nn.Module) -> Tensor | None:
    """The weight that :func:`folded` returned last, in oneDNN's layout for this input; None where
    PyTorch would not let oneDNN convolve, or it is not worth it."""
    known = _FOLDED[norm]
    weight, bias = known.made
    if weight.numel() < PACKED_FROM or not isinstance(conv, nn.Conv2d) or conv.groups != 1:
        return None
    if x.dtype != torch.float32 or x.ndim != 4 or not x.is_cpu or isinstance(conv.padding, str):
        return None
    if conv.padding_mode != "zeros" or (torch.is_grad_enabled() and x.requires_grad):
        return None
    geometry = x.shape, x.stride()
    if geometry not in known.packed:
        known.packed.clear()
        window = conv.stride, conv.padding, conv.dilation
        server = torch._C._select_conv_backend(x, weight, bias, *window, False, (0, 0), 1, None)
        made = None
        if server.name == "Mkldnn":
            with torch.inference_mode(False), torch.no_grad():
                order = conv.padding, conv.stride, conv.dilation, 1, x.shape
                made = torch.ops.mkldnn._reorder_convolution_weight(weight, *order)
        known.packed[geometry] = made
    return known.packed[geometry]


def forget(norm: nn.Module) -> None:
    """Lets what ``norm`` is in be folded anew."""
    _FOLDED.pop(norm, None)


def _of(layer: Any, name: str) -> Tensor | None:
    return layer._parameters.get(name)


def _foldable(
    conv: Any,
    norm: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
) -> bool:
    if weight is None or mean is None or var is None:
        return False
    if weight.dtype not in (torch.float32, torch.float64) or weight.is_meta:
        return False
    if conv.bias is not bias or norm.weight is not gamma or norm.bias is not beta:
        return False  # computed at each call
    return all(
        type(one) in (Tensor, nn.Parameter, nn.Buffer)
        and one.dtype == weight.dtype
        and one.device == weight.device
        and not one.is_inference()
        for one in (weight, bias, gamma, beta, mean, var)
        if one is not None
    )


def _kept(numbers: Tensor) -> tuple[Any, Any]:
    """Numbers in memory, and a copy. NumPy compares them in a tenth of an operator's time."""
    if numbers.is_cpu:
        return numbers.numpy(), numbers.numpy().tobytes()
    return numbers, numbers.clone()


def _some(weight: Any) -> Tensor:
    """One in so many numbers of a weight without gaps in memory; of another, all."""
    if not torch.ops.aten.is_non_overlapping_and_dense(weight):
        return weight
    count = -(-weight.numel() // STEP)
    return weight.detach().as_strided((count,), (STEP,))


def _fold(
    eps: float,
    weight: Any,
    bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    mean: Any,
    var: Any,
) -> Vectors:
    scale = (var.double() + eps).rsqrt()
    scale = scale if gamma is None else scale * gamma
    shift = -mean * scale if bias is None else (bias - mean) * scale
    shift = shift if beta is None else shift + beta
    each = scale.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
    return weight * each, shift.to(weight.dtype)
