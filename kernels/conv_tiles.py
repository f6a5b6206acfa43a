"""The tiles of the convolution kernels: how large they are, and which taps and channels, which
pixels, they hold."""

from typing import Any

import torch
import triton
import triton.language as tl

from . import runtime
from .elements import inline

# (BLOCK_M, BLOCK_N, BLOCK_K, num_warps, num_stages) by the bytes of an element: the first whose
# BLOCK_N holds the columns or the last. Sixteen is the least that tl.dot takes. Where channels are
# not neighbours in memory the last row is left out: its elements come one by one, through registers
# instead of asynchronous copies, and there are not enough for so large a tile.
TILES = {
    2: [(128, 16, 32, 4, 3), (128, 32, 32, 8, 3), (128, 64, 32, 8, 3), (128, 128, 32, 8, 3)],
    4: [(64, 16, 16, 4, 2), (64, 32, 16, 4, 2), (64, 64, 16, 8, 2)],
    8: [(32, 16, 16, 4, 2), (32, 32, 16, 4, 2)],
}
# Fewer channels a group than this merge with the taps into one sequence.
MERGED_BELOW = 16


def product(dtype: torch.dtype, m: int, n: int, channels_last: bool) -> dict[str, int]:
    """The tile for a product of m x n in this dtype, no larger than the problem."""
    rows = TILES[dtype.itemsize] if channels_last else TILES[dtype.itemsize][:-1]
    block_m, block_n, block_k, warps, stages = next((row for row in rows if row[1] >= n), rows[-1])
    if runtime.power_of_two(m) < block_m:
        block_m, warps = max(16, runtime.power_of_two(m)), 4
    return {
        "BLOCK_M": block_m,
        "BLOCK_N": block_n,
        "BLOCK_K": block_k,
        "num_warps": warps,
        "num_stages": stages,
    }


@inline
def taps_of(block, lane, channels, KERNEL: tl.constexpr, BLOCK: tl.constexpr, MERGED: tl.constexpr):
    """The block-th block of the sequence of taps and channels, channels innermost: taps (td, th,
    tw), channels, mask.

    ``lane`` counts from 0 to BLOCK - 1 along any axis. Unless MERGED a block lies within one tap
    and the taps are scalars.
    """
    if MERGED:
        index = block * BLOCK + lane
        tap = index // channels
        channel = index % channels
        inside = tap < KERNEL[0] * KERNEL[1] * KERNEL[2]
    else:
        blocks = (channels + BLOCK - 1) // BLOCK
        tap = block // blocks
        channel = block % blocks * BLOCK + lane
        inside = channel < channels
    return (
        tap // (KERNEL[1] * KERNEL[2]),
        tap // KERNEL[2] % KERNEL[1],
        tap % KERNEL[2],
        channel,
        inside,
    )


def tap_blocks(channels: int, taps: int, block: int) -> dict[str, Any]:
    """How many blocks the sequence of taps and channels has, and whether they merge."""
    merged = channels < MERGED_BELOW
    blocks = triton.cdiv(taps * channels, block) if merged else taps * triton.cdiv(channels, block)
    return {"blocks": blocks, "MERGED": merged}


@inline
def written_at(
    source, tap, windows, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr
):
    """Which window of one axis reads ``source`` with its tap ``tap``, and whether one does:
    elements.read_at inverted."""
    reach = source + PADDING - tap * DILATION
    position = reach // STRIDE
    return position, (reach >= 0) & (reach % STRIDE == 0) & (position < windows)
