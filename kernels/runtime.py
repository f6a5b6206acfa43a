"""What the Triton kernels share on the host: axes, address width, tiles, and the one place that
launches.

Every kernel sees a map as (N, C, D, H, W): axes that a map does not have stand in front of those it
has, with size 1. Triton makes a constant of every argument that is 1, so an absent axis costs
nothing in the compiled kernel.
"""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton

from pydl import layout, plan

INTERPRETING = bool(triton.knobs.runtime.interpret)

# Offsets are 32-bit below this. The margin keeps the indices of the last, partly masked block from
# wrapping around.
NARROW_LIMIT = 2**31 - 2**20

# As many registers as a thread can have, for a launch's maxnreg. Left to itself, ptxas spills a
# value or two where one block more then fits on a multiprocessor; told how many a thread may have,
# it takes what it needs of them.
ALL_REGISTERS = 255


def spread(axes: Sequence[int], absent: int) -> tuple[int, int, int]:
    """One to three values, one a spatial axis, as D, H, W."""
    return (absent,) * (3 - len(axes)) + tuple(int(value) for value in axes)


def shape(size: Sequence[int]) -> tuple[int, int, int, int, int]:
    """The sizes of a map as N, C, D, H, W."""
    return (*size[:2], *spread(size[2:], 1))


def stride(x: torch.Tensor) -> tuple[int, int, int, int, int]:
    """The strides of a map as N, C, D, H, W, in elements."""
    return (*x.stride()[:2], *spread(x.stride()[2:], 0))


def channels_last(x: torch.Tensor) -> bool:
    """Whether neighbours in memory are neighbouring channels."""
    return layout.memory_format(x) != torch.contiguous_format


def window(
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1, 1),
) -> dict[str, tuple[int, int, int]]:
    """The windows of an operator as arguments of its kernel: each a constant D, H, W."""
    return {
        "KERNEL": spread(kernel_size, 1),
        "STRIDE": spread(stride, 1),
        "PADDING": spread(padding, 0),
        "DILATION": spread(dilation, 1),
    }


def wide(*tensors: torch.Tensor) -> bool:
    """Whether an offset into one of these, or the count of its elements, needs 64 bits."""

    def reach(x: torch.Tensor) -> int:
        return sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True))

    return any(max(reach(x), x.numel()) >= NARROW_LIMIT for x in tensors)


def power_of_two(count: int) -> int:
    """The smallest power of two that is at least ``count``."""
    return 1 << max(count - 1, 0).bit_length()


def unroll(trips: int) -> int:
    """How often a loop over the taps of a window is unrolled: entirely up to 4 x 4, so that all its
    loads are in flight, else twice: four times ptxas spills a register."""
    return trips if trips <= 16 else 2


def strip_of(height: int, step: int, reach: int, most: int = 14) -> int:
    """How many rows of an output of this height, one under the other, a lane computes of maps whose
    neighbours are pixels: 4, 7 or 14, no more than ``most``, whichever reads the fewest rows of
    the input, a window's ``reach`` of them each ``step``."""
    return min(
        (strip for strip in (4, 7, 14) if strip <= max(most, 4)),
        key=lambda strip: triton.cdiv(height, strip) * ((strip - 1) * step + reach),
    )


def dense(last: bool, *operands: torch.Tensor | None) -> bool:
    """Whether these maps are dense, with their channels last or as PyTorch lays a tensor."""
    for x in operands:
        if x is None:
            continue
        step, axes = 1, [*range(x.ndim - 1, 0, -1)]
        for axis in (1, *axes[:-1], 0) if last else (*axes, 0):
            if x.shape[axis] > 1 and x.stride(axis) != step:
                return False
            step *= x.shape[axis]
    return True


def block_of(columns: int, most: int) -> int:
    """How many columns a program covers of a row: a power of two, and the widest whose blocks leave
    at most one lane of nine idle, down to 32; else that of the fewest."""
    widths = [min(power_of_two(columns), most)]
    while widths[-1] > 32:
        widths.append(widths[-1] // 2)
    covered = [-(-columns // width) * width for width in widths]
    enough = max(min(covered), columns + columns // 8)
    return next(w for w, count in zip(widths, covered, strict=True) if count <= enough)


def tile(
    y: torch.Tensor,
    elements: int = 1024,
    widest: int = 1024,
    flat: bool = False,
    size: Sequence[int] | None = None,
    channels: int | None = None,
) -> dict[str, Any]:
    """How the programs of an element-wise kernel cover the dense result ``y``, or a map like it of
    another ``size`` and number of ``channels``: the arguments of :func:`elements.walk`.

    A row is what is contiguous in memory: the channels of a pixel (channels last) or the pixels of
    a plane; ``flat``, where no element asks for its channel: everything. A program covers about
    ``elements`` elements, of the usual 1,024 each of its 128 threads 8: wide rows first, up to
    ``widest``, then as many rows as fit.
    """
    last = channels_last(y) and not flat
    plane = math.prod(y.shape[2:] if size is None else size)
    channels = y.shape[1] if channels is None else channels
    count = y.shape[0] * channels * plane
    columns = count if flat else channels if last else plane
    rows = count // columns
    block_columns = block_of(columns, min(elements, widest))
    block_rows = min(power_of_two(rows), elements // block_columns)
    return {
        "rows": rows,
        "columns": columns,
        "ROWS": block_rows,
        "COLUMNS": block_columns,
        "CHANNELS_LAST": last,
    }


def programs(tiling: dict[str, Any]) -> int:
    """The number of programs that cover a :func:`tile`."""
    return triton.cdiv(tiling["rows"], tiling["ROWS"]) * triton.cdiv(
        tiling["columns"], tiling["COLUMNS"]
    )


def launch(kernel: Any, count: int, device: torch.device, *arguments: Any, **named: Any) -> None:
    """Starts ``count`` programs of ``kernel`` under the device of its tensors.

    A CPU tensor can only be interpreted; Triton says so when it finds no driver. Fused
    multiply-adds are asked for by name because Triton's default depends on its version and on an
    environment variable.

    A plan starts what was compiled for these arguments, without Triton's binding them (70 us).
    """
    recorder = plan.recording()
    if recorder is None:
        _start(kernel, count, device, arguments, named)
        return
    compiled = recorder.quietly(_start, kernel, count, device, arguments, named)
    if compiled is None:  # interpreted
        recorder.note(_interpret, (kernel, count, *arguments), named)
        return
    own = {name: value for name, value in named.items() if name in kernel.arg_names}
    bound = kernel.signature.bind(*arguments, **own)
    bound.apply_defaults()
    recorder.note(_starter(compiled, count, device), bound.args, {})


def _on(device: torch.device) -> contextlib.AbstractContextManager:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _start(
    kernel: Any, count: int, device: torch.device, arguments: tuple, named: dict[str, Any]
) -> Any:
    """What Triton compiled for the call; None where it is interpreted."""
    with _on(device):
        return kernel[(count,)](*arguments, **named, enable_fp_fusion=True)


def _interpret(kernel: Any, count: int, *arguments: Any, **named: Any) -> None:
    kernel[(count,)](*arguments, **named, enable_fp_fusion=True)


def _starter(compiled: Any, count: int, device: torch.device) -> Any:
    """What starts ``count`` programs of what was compiled, on the current stream of a GPU, which is
    made the current one. A profiler that hooks itself in before and after launches is told of
    each; asking Triton for its hooks takes as long as all else, so it is done where there are
    any."""
    hooked = compiled[(count, 1, 1)]
    run, function, packed = compiled.run, compiled.function, compiled.packed_metadata
    knobs, driver = triton.knobs.runtime, triton.runtime.driver.active
    # Lists, which hooks are added to and removed from, while nobody puts others in their place.
    before, after = knobs.launch_enter_hook.calls, knobs.launch_exit_hook.calls
    stream_of, index = driver.get_current_stream, device.index
    here = None if index is None else torch._C._cuda_getDevice

    def start(*arguments: Any) -> None:
        if here is not None and here() != index:
            with torch.cuda.device(index):
                start(*arguments)
        elif before or after:
            hooked(*arguments)
        else:
            run(count, 1, 1, stream_of(index), function, packed, None, None, None, *arguments)

    return start
