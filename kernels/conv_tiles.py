"""The tiles of the convolution kernels: how large they are, and which taps and channels, which
pixels, they hold."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from pydl import plan

from . import runtime
from .elements import inline

# The one table of configurations, by what the operands are, which problem it is and which axis is
# contiguous. A first call times nothing.
#
# Products, dense (a block of K within one tap) or merged (taps and channels one sequence): the
# first row whose BLOCK_N holds the columns, or the last. Sixteen is the least that tl.dot takes.
# Where channels are not neighbours in memory the largest tile is left out: its elements come one by
# one, through registers instead of asynchronous copies, and there are not enough for it. A merged
# tile finds where it reads for each element instead of for each pixel, and is smaller for the
# registers that this takes.
#
# Depthwise: one row; BLOCK_M pixels, BLOCK_N channels, and BLOCK_K taps of a weight's gradient.


class Tile(NamedTuple):
    """A row of the table."""

    block_m: int
    block_n: int
    block_k: int
    warps: int
    stages: int


_HALF = (
    Tile(128, 16, 32, 4, 3),
    Tile(128, 32, 32, 8, 3),
    Tile(128, 64, 32, 8, 3),
    Tile(128, 128, 32, 8, 3),
)
_TF32 = (
    Tile(128, 16, 16, 4, 3),
    Tile(128, 32, 16, 8, 3),
    Tile(128, 64, 32, 8, 3),
    Tile(128, 128, 32, 8, 3),
)
_FLOAT = (Tile(64, 16, 16, 4, 2), Tile(64, 32, 16, 4, 2), Tile(64, 64, 16, 8, 2))
_HALF_MERGED = (Tile(64, 16, 32, 4, 3), Tile(64, 32, 32, 4, 3), Tile(64, 64, 32, 8, 3))
_TF32_MERGED = (Tile(64, 16, 16, 4, 3), Tile(64, 32, 16, 4, 3), Tile(64, 64, 16, 4, 3))
_FLOAT_MERGED = (Tile(64, 16, 16, 8, 2), Tile(64, 32, 16, 8, 2))
_DOUBLE = (Tile(32, 16, 16, 4, 2), Tile(32, 32, 16, 4, 2))
TILES: dict[tuple[str, str, str], tuple[Tile, ...]] = {
    ("half", "dense", "channels last"): _HALF,
    # Gathered element by element, whose offsets would not fit into the registers of four warps.
    ("half", "dense", "contiguous"): (_HALF[0]._replace(warps=8), *_HALF[1:-1]),
    ("half", "merged", "channels last"): _HALF_MERGED,
    ("half", "merged", "contiguous"): _HALF_MERGED,
    ("half", "depthwise", "channels last"): (Tile(8, 128, 4, 4, 1),),
    ("half", "depthwise", "contiguous"): (Tile(256, 2, 4, 4, 1),),
    ("tf32", "dense", "channels last"): _TF32,
    ("tf32", "dense", "contiguous"): _TF32[:-1],
    ("tf32", "merged", "channels last"): _TF32_MERGED,
    ("tf32", "merged", "contiguous"): _TF32_MERGED,
    ("float", "dense", "channels last"): _FLOAT,
    ("float", "dense", "contiguous"): _FLOAT[:-1],
    ("float", "merged", "channels last"): _FLOAT_MERGED,
    ("float", "merged", "contiguous"): _FLOAT_MERGED,
    ("float", "depthwise", "channels last"): (Tile(8, 128, 4, 4, 1),),
    ("float", "depthwise", "contiguous"): (Tile(256, 4, 4, 4, 1),),
    ("double", "dense", "channels last"): _DOUBLE,
    ("double", "dense", "contiguous"): _DOUBLE[:-1],
    ("double", "merged", "channels last"): _DOUBLE[:-1],
    ("double", "merged", "contiguous"): _DOUBLE[:-1],
    ("double", "depthwise", "channels last"): (Tile(4, 128, 4, 4, 1),),
    ("double", "depthwise", "contiguous"): (Tile(128, 4, 4, 4, 1),),
}
# Fewer channels a group than this merge with the taps into one sequence.
MERGED_BELOW = 16
# With one channel a group and fewer filters a group than this, a product would leave most columns
# of its least tile empty, and the kernels of conv_depthwise serve.
DEPTHWISE_BELOW = 16


def depthwise(channels: int, features: int) -> bool:
    """Whether a convolution with so many channels and filters a group is conv_depthwise's."""
    return channels == 1 and features < DEPTHWISE_BELOW


def input_precision(dtype: torch.dtype, operator: str = "conv") -> str:
    """What tl.dot does with float32: "tf32" where PyTorch's flags let cuDNN's convolutions (or its
    ``operator`` "rnn") use it, else "ieee".

    The flags are only read. The newer one answers for the older ``allow_tf32`` as well, which
    raises when both have been set apart.
    """
    if dtype != torch.float32:
        return "ieee"
    return "tf32" if plan.setting(_allowed(operator)) else "ieee"


@functools.cache
def _allowed(operator: str) -> Callable[[], bool]:
    """The same function each time, which a plan asks once."""
    newer = getattr(torch.backends.cudnn, operator, None)
    if hasattr(newer, "fp32_precision"):
        return lambda: newer.fp32_precision == "tf32"
    return lambda: torch.backends.cudnn.allow_tf32


def operands(dtype: torch.dtype, operator: str = "conv") -> str:
    """What tl.dot multiplies: "half", "tf32", "float" or "double"."""
    if input_precision(dtype, operator) == "tf32":
        return "tf32"
    return {2: "half", 4: "float", 8: "double"}[dtype.itemsize]


def rows(dtype: torch.dtype, problem: str, channels_last: bool) -> tuple[Tile, ...]:
    """The rows of the table for a dtype, a problem and a layout."""
    kind = operands(dtype)
    if problem == "depthwise" and kind == "tf32":
        kind = "float"
    return TILES[kind, problem, "channels last" if channels_last else "contiguous"]


def product(
    dtype: torch.dtype, m: int, n: int, channels: int, channels_last: bool
) -> dict[str, int | str]:
    """The tile for a product of m x n in this dtype, no larger than the problem, over taps and so
    many channels, and how it multiplies."""
    choices = rows(dtype, "merged" if channels < MERGED_BELOW else "dense", channels_last)
    tile = next((row for row in choices if row.block_n >= n), choices[-1])
    precision = input_precision(dtype)
    if runtime.power_of_two(m) < tile.block_m:
        tile = tile._replace(block_m=max(16, runtime.power_of_two(m)), warps=4)
    return {
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "INPUT_PRECISION": precision,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
        # Without, all but the largest tile of TF32 spill a value or two.
        "maxnreg": None if tile.block_n == 128 and precision == "tf32" else runtime.ALL_REGISTERS,
    }


def tap_blocks(channels: int, taps: int, block: int) -> dict[str, Any]:
    """How many blocks the sequence of taps and channels has, and whether they merge."""
    merged = channels < MERGED_BELOW
    blocks = triton.cdiv(taps * channels, block) if merged else taps * triton.cdiv(channels, block)
    return {"blocks": blocks, "MERGED": merged}


def tap_steps(stride: Sequence[int], dilation: Sequence[int]) -> tuple[int, int, int]:
    """How far apart the taps are that reach one element, each axis: stride / gcd(stride,
    dilation)."""
    steps = [s // math.gcd(s, d) for s, d in zip(stride, dilation, strict=True)]
    return runtime.spread(steps, 1)


@inline
def taps_of(block, lane, channels, kernel, BLOCK: tl.constexpr, MERGED: tl.constexpr):
    """The block-th block of the sequence of taps and channels, channels innermost: taps (td, th,
    tw), channels, mask.

    ``lane`` counts from 0 to BLOCK - 1 along any axis, ``kernel`` is the taps an axis. Unless
    MERGED a block lies within one tap and the taps are scalars.
    """
    if MERGED:
        index = block * BLOCK + lane
        tap = index // channels
        channel = index % channels
        inside = tap < kernel[0] * kernel[1] * kernel[2]
    else:
        blocks = (channels + BLOCK - 1) // BLOCK
        tap = block // blocks
        channel = block % blocks * BLOCK + lane
        inside = channel < channels
    return (
        tap // (kernel[1] * kernel[2]),
        tap // kernel[2] % kernel[1],
        tap % kernel[2],
        channel,
        inside,
    )


@inline
def residue_class(
    residue,
    size,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
    TAP_STEP: tl.constexpr,
):
    """Of one axis of a convolution's input: the elements i whose (i + PADDING) % STRIDE is
    ``residue``, and the taps that read them, which for all of them are the same.

    Returns the first such i, how many there are, the first such tap, how many there are (one in
    TAP_STEP), and which window reads the first element with the first tap. Element first + q *
    STRIDE is read by tap first + j * TAP_STEP of the window at + q - j * (DILATION * TAP_STEP /
    STRIDE): with stride 1.
    """
    if STRIDE == 1:
        return 0, size, 0, KERNEL, PADDING
    else:
        first = (residue + STRIDE - PADDING % STRIDE) % STRIDE
        count = (size - first + STRIDE - 1) // STRIDE
        tap = residue * 0 + KERNEL
        for t in tl.static_range(0, TAP_STEP if TAP_STEP < KERNEL else KERNEL):
            tap = tl.where(t * DILATION % STRIDE == residue, t, tap)
        taps = (KERNEL - tap + TAP_STEP - 1) // TAP_STEP
        return first, count, tap, taps, (first + PADDING - tap * DILATION) // STRIDE
