"""What test_cubins compiles of the recurrent kernels."""

from collections.abc import Iterator
from functools import partial

import torch
from cubin_cases import BF16, DOUBLE, FLOAT, HALF, Case


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
    """Both passes of one step; ``options`` names peephole, norm, drop, masks."""
    from pydl.kernels import rnn

    from pydl import rnn_results

    def of(*size: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(size, dtype=dtype, device="meta")

    gates = rnn_results.GATES[cell]
    lstm, norm, projects = cell == "lstm", "norm" in options, state > 0
    state = state or hidden
    x, weight, h = (
        of(sequences, gates * hidden),
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
        of(sequences, state, dtype=torch.uint8) if masks else None,
        of(sequences, hidden, dtype=torch.uint8) if masks and lstm else None,
        *(None, cell, False, zoneout, zoneout, 1e-5),
    )

    def forward():
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            return rnn.rnn_forward(x, weight, of(gates * hidden), *rest, True)

    def backward():
        y, h_n, c_n, c_kept, *kept, _ = rnn_results.forward(x, h, c, cell, True, norm, projects)
        saved = c_kept if lstm else None, kept[0], *(kept[1:] if norm else (None, None))
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            rnn.rnn_backward(y, h_n, c_n if lstm else None, y, *saved, weight, *rest)

    yield Case(f"y: {reason}, {cell}", dtype, forward)
    yield Case(f"grads: {reason}, {cell}", dtype, backward)


def rnn_cases() -> Iterator[Case]:
    from pydl.kernels import rnn

    # Step by step.
    all_at_once = {"state": 512, "options": "peephole norm drop masks"}
    yield from _layer("all options", FLOAT, "lstm", 64, 1024, **all_at_once)
    yield from _layer("all options", DOUBLE, "lstm", 8, 1024, **all_at_once)
    yield from _layer("peephole", HALF, "lstm", 64, 1024, options="peephole", zoneout=0.1)
    yield from _layer("layer norm", BF16, "gru_reset_before", 8, 1024, options="norm")
    yield from _layer("few sequences", FLOAT, "gru", 8, 1024, tf32=False)
    yield from _layer("64-bit offsets", HALF, "gru", 2**17, 2**13)
    # Cells alone.
    for dtype, cell in ((HALF, "gru"), (FLOAT, "rnn_tanh"), (DOUBLE, "lstm")):
        gates, kept = rnn.rnn_results.GATES[cell], rnn.rnn_results.KEPT[cell]
        x, a = (torch.empty(64, n * 512, dtype=dtype, device="meta") for n in (gates, kept))
        h = torch.empty(64, 512, dtype=dtype, device="meta")
        old = h if cell == "gru" else None, h if cell == "lstm" else None
        yield Case(
            f"a cell, {cell}",
            dtype,
            partial(rnn.rnn_cell_forward, x, x, *old, None, cell, True),
        )
        yield Case(
            f"a cell's gradient, {cell}",
            dtype,
            partial(rnn.rnn_cell_backward, h, old[1], a, *old, old[1], None, cell),
        )
