"""Dropout with Philox's mask, forward and backward (definition: csrc/dropout.h).

    y[e] = x[e] / (1 - p) where word e % 4 of Philox4x32-10(seed, e / 4) >= p 2^32, else x[e] * 0

Layout: dense, counted in the order of memory. A program covers BLOCK counters, four neighbouring
elements each. Bytes: x read and y written once; no mask is stored. Operations: 20 products of 32
bits for four elements, which hide behind the memory. Why this form: the words of a counter stay in
the thread whose four elements they decide on, a 16-byte access in float32.
"""

import torch
import triton
import triton.language as tl

from pydl import layout
from pydl.contract.dropout import DropoutBackward, DropoutForward

from . import runtime
from .elements import inline, narrow, number, widen

BLOCK = 256  # counters of a program


@inline
def product(a, B: tl.constexpr):
    """The upper and the lower 32 bits of a 32-bit product."""
    both = a.to(tl.uint64) * tl.full(a.shape, B, tl.uint64)
    return (both >> 32).to(tl.uint32), both.to(tl.uint32)


@inline
def philox(counter, seed):
    """The four words of Philox4x32-10 for each 64-bit counter and a 64-bit key."""
    c0, c1 = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    c2, c3 = tl.zeros_like(c0), tl.zeros_like(c0)
    # Keys as tensors: the interpreter's scalars warn of the overflow that is meant.
    k0 = c2 + seed.to(tl.uint32)
    k1 = c2 + (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        high0, low0 = product(c0, 0xD2511F53)
        high1, low1 = product(c2, 0xCD9E8D57)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += tl.full(k0.shape, 0x9E3779B9, tl.uint32)
        k1 += tl.full(k1.shape, 0xBB67AE85, tl.uint32)
    return c0, c1, c2, c3


@triton.jit(do_not_specialize=("least",))
def dropout_kernel(
    x_ptr,  # (elements,)
    y_ptr,  # (elements,), written
    seed_ptr,  # (1,) of int64
    elements,
    least: tl.int64,  # words from here on keep their element
    scale: tl.float64,
    BLOCK: tl.constexpr,
):
    counter = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    w0, w1, w2, w3 = philox(counter, tl.load(seed_ptr))
    which = tl.arange(0, 4)[None, :]
    word = tl.where(which == 0, w0[:, None], w1[:, None])  # [BLOCK, 4]
    word = tl.where(which == 2, w2[:, None], word)
    word = tl.where(which == 3, w3[:, None], word)
    at = counter[:, None] * 4 + which
    x = widen(tl.load(x_ptr + at, mask=at < elements, other=0.0))
    kept = word.to(tl.int64) >= least
    y = tl.where(kept, x * number(scale, x), x * 0.0)
    tl.store(y_ptr + at, narrow(y, y_ptr), mask=at < elements)


def dropout_forward(call: DropoutForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, p, seed = call
    return _run(layout.dense(x), p, seed)


def dropout_backward(call: DropoutBackward) -> torch.Tensor:
    """grad_x, in the layout that the forward's result had."""
    grad_y, p, seed, channels_last = call
    return _run(layout.ordered(grad_y, channels_last), p, seed)


def _run(x: torch.Tensor, p: float, seed: torch.Tensor) -> torch.Tensor:
    y = layout.empty(x.shape, x)
    if y.numel() > 0:
        runtime.launch(
            dropout_kernel,
            triton.cdiv(y.numel(), 4 * BLOCK),
            x.device,
            x,
            y,
            seed,
            y.numel(),
            least=int(min(p * 2**32, 2**32 - 1)),
            scale=1 / (1 - p) if p < 1 else 0.0,
            BLOCK=BLOCK,
        )
    return y
