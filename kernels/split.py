"""Sums over pixels, split: how many parts, where they go, and the kernel that adds them up.

    out[i] = sum over s of part[s, i]

A program covers BLOCK results and adds their parts in order. The number of parts depends on the
shape alone and nothing is atomic, so the results repeat bit for bit. It reads each part and writes
each result once; the parts are in float32 (float64 for float64) and have just been written, so most
are still in the L2 cache.
"""

import torch
import triton
import triton.language as tl

from pydl import layout

from . import runtime
from .elements import as_offset, narrow

# The weight and bias gradients are split over pixels until about this many programs run (four waves
# on 132 processors), but no split gets fewer pixels than SPLIT_PIXELS. Both numbers are fixed, so
# the order of a sum depends on the shape alone.
SPLIT_PROGRAMS = 512
SPLIT_PIXELS = 256


@triton.jit
def sum_parts_kernel(
    part_ptr,  # (splits, count), dense, float32 or float64
    out_ptr,  # (count,), dense, written
    splits,
    count,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    program = as_offset(tl.program_id(0), WIDE)
    i = program * BLOCK + tl.arange(0, BLOCK)
    total = tl.full([BLOCK], 0.0, part_ptr.dtype.element_ty)
    for _ in range(splits):
        total += tl.load(part_ptr + i, mask=i < count, other=0.0)
        part_ptr += count
    tl.store(out_ptr + i, narrow(total, out_ptr), mask=i < count)


def split_of(pixels: int, programs: int, block: int) -> tuple[int, int]:
    """Into how many parts a sum over pixels is split, and how many blocks of pixels each gets."""
    blocks = triton.cdiv(pixels, block)
    splits = max(1, min(triton.cdiv(SPLIT_PROGRAMS, programs), pixels // SPLIT_PIXELS))
    split_blocks = triton.cdiv(blocks, splits)
    return triton.cdiv(blocks, split_blocks), split_blocks


def parts_of(out: torch.Tensor, splits: int) -> torch.Tensor:
    """Where the parts of ``out`` go; ``out`` itself if there is one."""
    if splits == 1:
        return out
    dtype = torch.float64 if out.dtype == torch.float64 else torch.float32
    return layout.empty((splits, out.numel()), out, dtype=dtype)


def sum_parts(parts: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Adds the parts up, 256 results a program."""
    if parts is not out:
        block = min(256, runtime.power_of_two(out.numel()))
        count = triton.cdiv(out.numel(), block)
        runtime.launch(
            sum_parts_kernel,
            count,
            out.device,
            parts,
            out,
            *parts.shape,
            BLOCK=block,
            WIDE=runtime.wide(parts),
        )
    return out
