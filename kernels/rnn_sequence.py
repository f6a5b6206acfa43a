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

from . import conv_tiles, runtime
from .rnn_cell import launch
from .rnn_sequence_kernels import rnn_sequence_backward_kernel, rnn_sequence_forward_kernel
from .rnn_step import How, Step, Tensors

# Sequences a program: the least that tl.dot takes, so that few of them still make some programs.
BLOCK_B = 16

# The most hidden units whose weight is in a program's reach, by what the operands are. Four gates
# take at most 136 KiB of shared memory, and the states of more units would leave the registers.
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
    rows, hidden = weight.shape
    if hidden > REACH[conv_tiles.operands(weight.dtype, "rnn")]:
        return False
    block = block_of(hidden)
    numbers = (rows // hidden * block + 2 * BLOCK_B) * block
    return numbers * weight.element_size() <= shared_memory(weight.device)


def block_of(hidden: int) -> int:
    """The hidden units as a tile has them."""
    return max(16, runtime.power_of_two(hidden))


def _launch(
    kernel: Any, tensors: Tensors, steps: list[Step], how: How, rows: int, hidden: int
) -> None:
    weight = tensors["weight_hh"]
    block = block_of(hidden)
    tile = {"ROWS": BLOCK_B, "COLUMNS": block, "num_warps": 4 if block == 16 else 8}
    firsts = None
    if any(step.rows != rows for step in steps):
        starts = sorted(step.first for step in steps)
        last = sum(step.rows for step in steps)
        firsts = torch.tensor([0, *starts, last, last], device=weight.device)
    constants = how.constants(tensors)
    del constants["EPS"]
    launch(
        kernel,
        tile | {"num_stages": 1},  # prefetched operands would take the weight's shared memory
        tensors | {"firsts": firsts},
        rows,
        hidden,
        steps=len(steps),
        REVERSE=how.reverse,
        INPUT_PRECISION=conv_tiles.input_precision(weight.dtype, "rnn"),
        **constants,
    )


def forward(tensors: Tensors, steps: list[Step], how: How) -> None:
    """As rnn_step.forward."""
    _launch(rnn_sequence_forward_kernel, tensors, steps, how, *tensors["h_n"].shape)


def backward(tensors: Tensors, steps: list[Step], how: How) -> None:
    """As rnn_step.backward."""
    _launch(rnn_sequence_backward_kernel, tensors, steps, how, *tensors["grad_h0"].shape)
