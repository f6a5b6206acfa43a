"""Each family from its definition, in plain differentiable tensor arithmetic: gathers, sums,
products.

Slow and obvious; differentiable to any order, so that double backward and the tests can rely on it.
It calls none of PyTorch's convolution, pooling, normalisation or recurrent operators. float16 and
bfloat16 are computed in float32.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Call = TypeVar("Call")
Results = TypeVar("Results")


def in_full_precision(function: Callable[[Call], Results]) -> Callable[[Call], Results]:
    """Computes a reference function on float32 copies of half tensors and rounds floating results
    back once.

    Autocast is off inside, so that no product is done in a lower precision than its operands'.
    """

    @functools.wraps(function)
    def wrapped(call: Any) -> Any:
        first = next(a for a in call if isinstance(a, torch.Tensor))
        low, half = first.dtype, first.dtype in (torch.float16, torch.bfloat16)
        if half:
            call = type(call)(
                *(
                    a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
                    for a in call
                )
            )
        with torch.autocast(first.device.type, enabled=False):
            results: Any = function(call)
        if not half:
            return results
        if isinstance(results, tuple):
            return tuple(r.to(low) if r.is_floating_point() else r for r in results)
        return results.to(low)

    return wrapped
