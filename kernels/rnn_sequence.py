"""A recurrent layer in one launch, where all of weight_hh is in one program's reach (definition:
csrc/rnn.h).

A program owns BLOCK_B sequences and goes through all steps: h and c stay in its registers, the
weight, read once, in its registers and shared memory, and nothing is exchanged between programs, so
there is no barrier among them. A step is the products by tl.dot and the gates; backward likewise,
last step first. Everything but layer norm and projections is here: packed sequences, either
direction, peepholes, dropout of the state, zoneout, a reset before the product (a second product
inside the step). The gates, and the order of all sums but those inside tl.dot, are the same as step
by step.

Bytes: gates and what backward needs once, the weight once per program. Few sequences leave most
processors idle, but a step costs no launch: rnn_step.py takes at least two.
"""

from typing import Any

import torch

from pydl import layout

from . import conv_tiles, runtime
from .rnn_cell import launch
from .rnn_sequence_kernels import rnn_sequence_backward_kernel, rnn_sequence_forward_kernel
from .rnn_step import How, Step, Tensors

# Sequences a program: the least that tl.dot takes, so that few of them still make some programs.
BLOCK_B = 16

# The most hidden units whose weight is in a program's reach, by what the operands are. Four gates
# take at most 148 KiB of shared memory, and the states of more units would leave the registers.
# Full float32 has no matrix unit: its products are unrolled over the threads, and with more than
# two results a thread LLVM fails on some of them.
REACH = {"half": 128, "tf32": 64, "float": 32, "double": 32}


def shared_memory(device: torch.device) -> int:
    """The bytes of it that a program may have: a GPU's, elsewhere sm_80's."""
    if device.type != "cuda":
        return 163 * 1024
    properties = torch.cuda.get_device_properties(device)
    return getattr(properties, "shared_memory_per_block_optin", 48 * 1024)


def in_reach(tensors: Tensors) -> bool:
    """Whether the kernels of this file serve a layer: its units are few, and the weight, with the
    states that are multiplied by it, fits the shared memory."""
    weight = tensors["weight_hh"]
    if tensors["norm"] is not None or tensors["weight_hr"] is not None:
        return False
    masks = tensors["zone_h"] is not None or tensors["zone_c"] is not None
    if masks and weight.dtype == torch.float64:
        return False  # which Triton 3.6 fails on, as bytes reach an operand of float64
    rows, hidden = weight.shape
    if hidden > REACH[conv_tiles.operands(weight.dtype, "rnn")]:
        return False
    wanted = shared_wanted(rows // hidden, block_of(hidden), weight.element_size())
    return wanted <= shared_memory(weight.device)


def shared_wanted(gates: int, block: int, element_size: int) -> int:
    """The most bytes of shared memory that a program takes: the weight, a state for each gate,
    which backward multiplies, and one between two layouts."""
    return (gates * block + (gates + 1) * BLOCK_B) * block * element_size


def block_of(hidden: int) -> int:
    """The hidden units as a tile has them."""
    return max(16, runtime.power_of_two(hidden))


def _firsts(steps: list[Step], like: torch.Tensor) -> torch.Tensor:
    """0, the first token of each step in the order of time, and twice the number of tokens, on the
    device of ``like``.

    The numbers go there as arguments of launches: a copy from the host's memory would wait for the
    GPU, and a CUDA graph could not capture it.
    """
    last = sum(step.rows for step in steps)
    values = [0, *sorted(step.first for step in steps), last, last]
    plain = torch.contiguous_format
    firsts = layout.empty((len(values),), like, dtype=torch.int64, layout=plain).zero_()
    torch._foreach_add_(firsts.unbind(), values)
    return firsts


def _launch(
    kernel: Any, tensors: Tensors, steps: list[Step], how: How, rows: int, hidden: int
) -> None:
    weight = tensors["weight_hh"]
    block = block_of(hidden)
    tile = {"ROWS": BLOCK_B, "COLUMNS": block, "num_warps": 4 if block == 16 else 8}
    firsts = None
    if any(step.rows != rows for step in steps):
        firsts = _firsts(steps, weight)
    options = how.options(tensors)
    del options["eps"]
    launch(
        kernel,
        tile | {"num_stages": 1},  # prefetched operands would take the weight's shared memory
        tensors | {"firsts": firsts},
        rows,
        hidden,
        steps=len(steps),
        REVERSE=how.reverse,
        INPUT_PRECISION=conv_tiles.input_precision(weight.dtype, "rnn"),
        **options,
    )


def forward(tensors: Tensors, steps: list[Step], how: How) -> None:
    """As rnn_step.forward."""
    _launch(rnn_sequence_forward_kernel, tensors, steps, how, *tensors["h_n"].shape)


def backward(tensors: Tensors, steps: list[Step], how: How) -> None:
    """As rnn_step.backward."""
    _launch(rnn_sequence_backward_kernel, tensors, steps, how, *tensors["grad_h0"].shape)
