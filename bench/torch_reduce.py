"""How PyTorch launches its reductions on an H100, as ATen/native/cuda/Reduce.cuh of its wheel has
it: which threads sum what, and the kernel's parameters."""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch_iterator import NAMES, TorchLaunch, aligned, axes, ceil_div, launch, offsets, pack

PROCESSORS, RESIDENT = 132, 2048  # multiprocessors, threads of each
MOST = 512  # threads of a block
LANES = 32


@dataclass
class Config:
    """ReduceConfig."""

    inputs: int
    outputs: int
    step_input: int = 1
    step_output: int = 1
    blocks: int = 1  # that share an output
    input_mult: list[int] = field(default_factory=lambda: [0, 0, 0])
    output_mult: list[int] = field(default_factory=lambda: [0, 0])
    width: int = 1
    height: int = 1
    vectorized: bool = False  # along the input
    vector: int = 1  # along the output

    def size(self, x: int, y: int) -> None:
        """Of the block."""
        most = MOST // self.vector
        x, y = (most if n >= most else 1 << n.bit_length() - 1 for n in (x, y))
        self.width = min(x, LANES)
        self.height = min(y, most // self.width)
        self.width = min(x, most // self.height)

    def split_input(self, parts: int) -> int:
        step, self.step_input = self.step_input, self.step_input * parts
        return step

    def split_output(self, parts: int) -> int:
        step, self.step_output = self.step_output, self.step_output * parts
        return step

    @property
    def each(self) -> int:
        """Values of a thread."""
        return ceil_div(self.inputs, self.step_input)

    @property
    def grid(self) -> tuple[int, int, int]:
        return ceil_div(self.outputs // self.vector, self.step_output), self.blocks, 1

    @property
    def packed(self) -> bytes:
        threads = self.width * self.height
        steps = (self.step_input, self.step_output, self.blocks)
        sizes = (*self.input_mult, *self.output_mult, self.width, self.height, threads)
        values = (4, self.inputs, self.outputs, *steps, *sizes)
        return pack("14i?i", *values, self.vectorized, self.vector)


def config(
    shape: Sequence[int], source: Sequence[int], reduced: int, itemsize: int, address: int, vec: int
) -> Config:
    """For axes of which the first ``reduced`` are summed, with the input's strides in bytes."""
    inputs, outputs = _product(shape[:reduced]), _product(shape[reduced:])
    one = Config(inputs, outputs)
    fastest = reduced == len(shape) or source[0] < source[reduced]
    x, y = (inputs, outputs) if fastest else (outputs, inputs)
    if source[0 if fastest else reduced] == itemsize:
        if fastest and x >= 128 and reduced == 1:
            one.vectorized = True
            x //= vec
        elif not fastest:
            rest = [s // itemsize for i, s in enumerate(source) if i != reduced]
            parts = (address // itemsize, shape[reduced], *rest)
            one.vector = next(v for v in (4, 2, 1) if not any(n % v for n in parts))
            x //= one.vector
    one.size(x, y)
    if fastest:
        one.input_mult[0] = one.split_input(one.width)
    else:
        one.output_mult[0] = one.split_output(one.width)
    if one.each >= min(16 * one.height, 256):
        one.input_mult[1] = one.split_input(one.height)
    else:
        one.output_mult[1] = one.split_output(one.height)
    target = PROCESSORS * (RESIDENT // (one.width * one.height))
    if one.input_mult[1] and one.each >= 256 and one.grid[0] <= target:
        wanted = min(ceil_div(target, one.grid[0]), ceil_div(one.each, 16))
        one.blocks = max(wanted, ceil_div(one.each, 256))
        if one.blocks > 1:
            one.input_mult[2] = one.split_input(one.blocks)
    return one


def _product(sizes: Sequence[int]) -> int:
    out = 1
    for n in sizes:
        out *= n
    return out


def reduction(
    operation: str, held: tuple[int, bytes], out: torch.Tensor, x: torch.Tensor
) -> TorchLaunch:
    """``operation`` is a pattern of its name, ``held`` its alignment and members; ``out`` has ones
    for the axes that are summed."""
    whole = out.expand(x.shape)
    found = axes((whole, x), reduced=True)
    target, source = found.strides
    reduced = sum(s == 0 for s in target)
    vec = 8 if x.element_size() == 2 else 4
    one = config(found.shape, source, reduced, x.element_size(), x.data_ptr(), vec)
    scratch = [torch.empty(0), torch.empty(0)]
    if one.blocks > 1:
        size = one.outputs * one.blocks * (1 if one.input_mult[0] else one.width * one.vector)
        scratch = [torch.zeros(size), torch.zeros(one.grid[0], dtype=torch.int32)]
    dst = pack("2P", out, 0)
    ends = pack("3Pq2?i", 0, *scratch, 0, False, True, 1)
    body = aligned(
        held,
        (4, struct.pack("<f", 0)),
        (4, one.packed),
        (4, offsets(found.shape[:reduced], [source[:reduced]])),
        (4, offsets(found.shape[reduced:], [target[reduced:], source[reduced:]])),
        (8, pack("P", x)),
        (8, dst),
        (8, ends),
    )
    t = NAMES[x.dtype]
    name = rf"reduce_kernel<{MOST // one.vector}, {one.vector}, at::native::ReduceOp<{t}, "
    name += rf"{operation}, unsigned int, {t}, 4, {vec}> >\("
    alone = not any(one.input_mult)
    block = (one.width, one.height)
    reads = (x, *scratch) if one.blocks > 1 else (x,)
    return launch(name, one.grid, block, body, reads=reads, writes=(out,), alone=alone)


def mean(out: torch.Tensor, x: torch.Tensor) -> TorchLaunch:
    t = NAMES[x.dtype]
    factor = struct.pack("<f", out.numel() / x.numel())
    return reduction(rf"at::native::MeanOps<{t}, float, float, {t}>", (4, factor), out, x)


def total(out: torch.Tensor, x: torch.Tensor) -> TorchLaunch:
    t = NAMES[x.dtype]
    functor = re.escape("at::native::sum_functor<") + rf"{t}, float, {t}>::operator\(\)\(.*"
    operation = rf"at::native::func_wrapper_t<{t}, {functor}\{{lambda\(float, float\)#1\}}>"
    return reduction(operation, (1, bytes(1)), out, x)
