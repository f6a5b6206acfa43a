"""What test_cubins compiles of the recurrent kernels."""

from collections.abc import Iterator
from functools import partial

import torch
from cubin_cases import BF16, DOUBLE, FLOAT, HALF, Case, triton

from pydl.contract import rnn as contract

STEPS = 3  # with one, the compiler would take the loop over them away


def _layer(
    reason: str,
    dtype: torch.dtype,
    cell: str,
    sequences: int,
    hidden: int,
    *,
    state: int = 0,
    options: str = "",
    zoneout: float = 0.0,
    tf32: bool = True,
) -> Iterator[Case]:
    """Both passes of STEPS steps; ``options`` names peephole, norm, drop, masks, packed."""

    def of(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    gates = contract.GATES[cell]
    sizes = [sequences] * STEPS if "packed" not in options else [sequences, sequences // 2, 3]
    tokens = sum(sizes)
    lstm, norm, projects = cell == "lstm", "norm" in options, state > 0
    state = state or hidden
    x, weight, h = (
        of(tokens, gates * hidden),
        of(gates * hidden, state),
        of(sequences, state),
    )
    c = of(sequences, hidden) if lstm else None
    masks = "masks" in options
    rest = (
        *(h, c, of(state, hidden) if projects else None),
        of(3, hidden) if "peephole" in options else None,
        of(gates * hidden) if norm else None,
        *((of(hidden), of(hidden)) if norm and lstm else (None, None)),
        h if "drop" in options else None,
        of(tokens, state, dtype=torch.uint8) if masks else None,
        of(tokens, hidden, dtype=torch.uint8) if masks and lstm else None,
        torch.tensor(sizes) if "packed" in options else None,
        *(cell, False, zoneout, zoneout, 1e-5),
    )

    def forward():
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            return triton("rnn_forward")(x, weight, of(gates * hidden), *rest, True)

    def backward():
        y, h_n, c_n, c_kept, *kept, _ = contract.RnnForward(x, weight, None, *rest, True).results()
        saved = c_kept if lstm else None, kept[0], *(kept[1:] if norm else (None, None))
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            triton("rnn_backward")(y, h_n, c_n if lstm else None, y, *saved, weight, *rest)

    yield Case(f"y: {reason}, {cell}", dtype, forward)
    yield Case(f"grads: {reason}, {cell}", dtype, backward)


def rnn_cases() -> Iterator[Case]:
    # Step by step.
    every = "peephole norm drop masks"
    yield from _layer("all options", FLOAT, "lstm", 64, 1024, state=512, options=every)
    yield from _layer("all options", DOUBLE, "lstm", 64, 1024, state=512, options=every)
    yield from _layer("layer norm", BF16, "gru_reset_before", 8, 1024, options="norm")
    yield from _layer("few sequences", FLOAT, "gru", 8, 1024, tf32=False)
    yield from _layer("64-bit offsets", HALF, "gru", 2**16, 2**13, zoneout=0.1)
    # All steps in one launch.
    every = "peephole drop masks packed"
    yield from _layer("the widest in reach", HALF, "lstm", 64, 128, options=every)
    yield from _layer("the widest in reach", FLOAT, "lstm", 64, 64, options=every)
    yield from _layer("the widest in reach", FLOAT, "lstm", 64, 32, options=every, tf32=False)
    yield from _layer("the widest in reach", DOUBLE, "lstm", 64, 32, options="peephole drop packed")
    yield from _layer("sixteen units", FLOAT, "gru_reset_before", 64, 16, options="drop")
    yield from _layer("one launch, 64-bit offsets", HALF, "gru", 2**22, 64, zoneout=0.1)
    # A cell alone.
    x, h = (torch.empty(64, n, dtype=DOUBLE, device="meta") for n in (2048, 512))
    forward = partial(triton("rnn_cell_forward"), x, x, None, h, None, "lstm", True)
    yield Case("a cell", DOUBLE, forward)
    backward = partial(triton("rnn_cell_backward"), h, h, x, None, h, h, None, "lstm")
    yield Case("a cell's gradient", DOUBLE, backward)
