"""A map times a number (definition: csrc/gain.h). A program covers BLOCK elements in the order of
memory."""

import torch
import triton
import triton.language as tl
from pydl.contract.gain import GainForward

from pydl import layout

from . import runtime
from .elements import narrow, widen

BLOCK = 1024


@triton.jit
def gain_kernel(x_ptr, y_ptr, count, FACTOR: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = widen(tl.load(x_ptr + at, mask=at < count, other=0.0))  # [BLOCK]
    tl.store(y_ptr + at, narrow(x * FACTOR, y_ptr), mask=at < count)


def gain_forward(call: GainForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, y = layout.dense(call.x), call.results()
    if y.numel() > 0:
        programs = triton.cdiv(y.numel(), BLOCK)
        runtime.launch(
            gain_kernel, programs, x.device, x, y, y.numel(), FACTOR=call.factor, BLOCK=BLOCK
        )
    return y
