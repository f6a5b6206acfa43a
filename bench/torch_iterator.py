"""How PyTorch launches its element-wise kernels: the order of axes, the kernel that serves it and
the kernel's parameters, as its headers have them (ATen/TensorIterator.h, native/cuda/Loops.cuh,
native/cuda/CUDALoops.cuh, cuda/detail/OffsetCalculator.cuh and IntegerDivider.cuh of its wheel)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sass.launches import Launch

NAMES = {
    torch.float32: "float",
    torch.bfloat16: "c10::BFloat16",
    torch.int64: "long",
}
THREADS, EACH = 128, 8  # of a block; elements of a thread where all lie side by side
AXES = 25  # that an offset calculator has room for


@dataclass(frozen=True)
class TorchLaunch(Launch):
    """``kernel`` is a pattern of its demangled name, empty for a copy that the driver makes;
    ``results`` are those of the tensors that each thread writes by itself alone, with what it is to
    write there."""

    results: tuple[torch.Tensor, ...] = ()


def launch(
    kernel: str,
    grid: Sequence[int],
    block: Sequence[int],
    parameters: bytes,
    *,
    reads: Sequence[torch.Tensor],
    writes: Sequence[torch.Tensor],
    alone: bool = True,
) -> TorchLaunch:
    """With what is missing of grid and block filled in."""
    x, y, z = (*grid, 1, 1)[:3]
    i, j, k = (*block, 1, 1)[:3]
    tensors = (*writes, *reads)
    results = tuple(writes) if alone else ()
    return TorchLaunch("", kernel, (x, y, z), (i, j, k), parameters, tensors, results=results)


def pack(layout: str, *values: object) -> bytes:
    """As C lays out arguments of these types; a pointer (P) is given as its tensor."""
    plain = [v.data_ptr() if isinstance(v, torch.Tensor) else v for v in values]
    return struct.pack(layout, *plain)


def aligned(*parts: tuple[int, bytes]) -> bytes:
    """One after the other, each at a multiple of its alignment."""
    out = b""
    for alignment, data in parts:
        out += b"\0" * (-len(out) % alignment) + data
    return out


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass(frozen=True)
class Axes:
    """Of all operands together, the fastest first; ``strides`` of an operand in bytes."""

    shape: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    @property
    def contiguous(self) -> bool:
        return len(self.shape) <= 1


def axes(operands: Sequence[torch.Tensor], *, first: int = 0, reduced: bool = False) -> Axes:
    """In the order of the strides, those that lie one behind the other as one.

    ``first`` is the operand that the order goes by first: an output that is given, or where it is
    not the first input. An operand that is ``reduced`` has strides of zero, and those go first.
    """
    shape = torch.broadcast_shapes(*(t.shape for t in operands))
    given = [t.expand(shape) for t in operands]
    strides = [[s * t.element_size() for s in t.stride()] for t in given]
    strides = [[s if n > 1 else 0 for s, n in zip(one, shape, strict=True)] for one in strides]

    def order(a: int, b: int) -> int:
        """Which axis is faster, by the first operand that says it."""
        for number, one in enumerate(strides[first:], first):
            if reduced and number == 0 and (one[a] == 0) != (one[b] == 0):
                return -1 if one[a] == 0 else 1
            if one[a] == 0 or one[b] == 0:
                continue
            if one[a] != one[b]:
                return -1 if one[a] < one[b] else 1
            if shape[a] > shape[b]:
                return 1
        return 0

    kept = [i for i in reversed(range(len(shape))) if shape[i] > 1]
    for start in range(1, len(kept)):  # by insertion: where no operand says it, order is kept
        at = start
        for before in reversed(range(start)):
            decided = order(kept[before], kept[at])
            if decided > 0:
                kept[before], kept[at] = kept[at], kept[before]
                at = before
            elif decided < 0:
                break
    sizes: list[int] = []
    steps: list[list[int]] = [[] for _ in strides]
    for axis in kept:
        here = [one[axis] for one in strides]
        joins = sizes and all(
            step[-1] * sizes[-1] == s for step, s in zip(steps, here, strict=True)
        )
        if joins:
            sizes[-1] *= shape[axis]
        else:
            sizes.append(shape[axis])
            for step, s in zip(steps, here, strict=True):
                step.append(s)
    return Axes(tuple(sizes), tuple(tuple(step) for step in steps))


def divider(divisor: int) -> tuple[int, int, int]:
    """Division of 32 bits by multiplication: divisor, factor and shift."""
    shift = (divisor - 1).bit_length()
    return divisor, (1 << 32) * ((1 << shift) - divisor) // divisor + 1, shift


def offsets(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> bytes:
    """An offset calculator of as many operands as there are strides."""
    dividers = b"".join(struct.pack("<3I", *divider(n)) for n in shape)
    steps = b"".join(
        struct.pack("<I", s % (1 << 32)) for at in zip(*strides, strict=True) for s in at
    )
    room = 4 * AXES * max(1, len(strides))
    return (
        struct.pack("<i", len(shape)) + dividers.ljust(12 * AXES, b"\0") + steps.ljust(room, b"\0")
    )


def captured(data: bytes | None = None) -> tuple[int, bytes]:
    """A lambda for host and device as nvcc wraps it: what it captures, then a pointer; nothing
    where it is not to capture (``[]``)."""
    if data is None:
        return 1, bytes(1)
    return 8, aligned((8, data), (8, bytes(8)))


def elementwise(
    functor: str,
    held: tuple[int, bytes],
    out: torch.Tensor,
    *inputs: torch.Tensor,
    given: bool = False,
) -> TorchLaunch:
    """One output of this functor, a pattern of its name; ``held`` are its alignment and members,
    and ``given`` says that the output was there before, so that its strides decide."""
    operands = (out, *inputs)
    found = axes(operands, first=0 if given or not inputs else 1)
    data = pack(f"{len(operands)}P", *operands)
    if found.contiguous:
        width = 16 // out.element_size()
        width = min(width, 8)
        name = rf"vectorized_elementwise_kernel<{width}, {functor}, std::array<"
        body = aligned((4, pack("i", out.numel())), held, (8, data))
        grid = ceil_div(out.numel(), THREADS * EACH)
        return launch(name, (grid,), (THREADS,), body, reads=inputs, writes=(out,))
    unrolled = 2 if out.element_size() >= 4 else 4
    name = rf"elementwise_kernel<128, {unrolled}, at::native::gpu_kernel_impl_nocast<{functor} ?>\("
    calculator = offsets(found.shape, found.strides)
    closure = aligned((4, calculator), (8, data), held)
    body = aligned((4, pack("i", out.numel())), (8, closure))
    grid = ceil_div(out.numel(), THREADS * unrolled)
    return launch(name, (grid,), (THREADS,), body, reads=inputs, writes=(out,))
