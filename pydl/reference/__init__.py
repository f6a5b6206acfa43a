"""Each family from its definition, in plain differentiable tensor arithmetic: gathers, sums,
products.

Slow and obvious; differentiable to any order, so that double backward and the tests can lean on it.
It calls none of PyTorch's convolution, pooling, normalisation or recurrent operators. float16 and
bfloat16 are computed in float32.
"""

import functools
from collections.abc import Callable

import torch


def in_full_precision(function: Callable) -> Callable:
    """Computes a reference function on float32 copies of half tensors and rounds floating results
    back once.

    Autocast is off inside, so that no product is done in a lower precision than its operands'.
    """

    @functools.wraps(function)
    def wrapped(*arguments):
        low = next(a.dtype for a in arguments if isinstance(a, torch.Tensor))
        device = next(a.device.type for a in arguments if isinstance(a, torch.Tensor))
        half = low in (torch.float16, torch.bfloat16)
        raised = [
            a.float() if half and isinstance(a, torch.Tensor) and a.is_floating_point() else a
            for a in arguments
        ]
        with torch.autocast(device, enabled=False):
            results = function(*raised)
        if not half:
            return results
        if isinstance(results, tuple):
            return tuple(r.to(low) if r.is_floating_point() else r for r in results)
        return results.to(low)

    return wrapped
