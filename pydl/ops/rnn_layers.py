"""Recurrent layers over each other, in one direction or two, by whoever serves them."""

import functools
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import _VF


def pytorch_serves(x: torch.Tensor, fused: bool) -> bool:
    """Whether PyTorch's own operator takes this input on this processor.

    Where it has a ``fused`` one it goes to it by the dtype before autocast, and oneDNN has no LSTM
    in halves for some processors, or one without a gradient.
    """
    if not fused or x.device.type != "cpu":
        return True
    low = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    if low is None and x.dtype not in (torch.float16, torch.bfloat16):
        return True
    return _serves_lstm(x.dtype, low, torch.is_grad_enabled(), torch.backends.mkldnn.enabled)


@functools.cache
def _serves_lstm(
    dtype: torch.dtype, low: torch.dtype | None, wants_grad: bool, mkldnn: bool
) -> bool:
    """Found out by a call of the smallest size."""

    def call() -> bool:
        with (
            torch.set_grad_enabled(wants_grad),
            torch.autocast("cpu", low, enabled=low is not None),
        ):
            x = torch.zeros(1, 1, 1, dtype=dtype, requires_grad=wants_grad)
            weights = [torch.zeros(4, 1, dtype=dtype, requires_grad=wants_grad)] * 2
            state = torch.zeros(1, 1, 1, dtype=dtype)
            try:
                y, *_ = _VF.lstm(x, (state, state), weights, False, 1, 0.0, False, False, False)
                if wants_grad:
                    torch.autograd.grad(y.sum(), x)
            except RuntimeError:
                return False
        return True

    # In a thread of its own, where the modes and transforms that the caller is under do not reach.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()
