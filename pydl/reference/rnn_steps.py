"""What both passes of the recurrent reference do at a step: rows of tokens, norms, zoneout."""

from itertools import pairwise

import torch

from pydl import layout

ACTIVATIONS = {"rnn_tanh": torch.tanh, "rnn_relu": torch.relu}


def raised(*tensors: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
    """Halves as float32, in which everything is computed."""
    return tuple(
        t.float() if t is not None and t.dtype in (torch.float16, torch.bfloat16) else t
        for t in tensors
    )


def rounded(result: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """A result in the operands' dtype; one without elements where there is none."""
    return layout.nothing(like) if result is None else result.to(like.dtype)


def packed_rows(batch_sizes: torch.Tensor | None, tokens: int, sequences: int) -> list[slice]:
    """The rows of each step's tokens."""
    if batch_sizes is None:
        sizes = [sequences] * (tokens // max(sequences, 1))
    else:
        sizes = batch_sizes.tolist()
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    return [slice(a, b) for a, b in pairwise(ends)]


def chunks(x: torch.Tensor, gates: int) -> tuple[torch.Tensor, ...]:
    """(n, G H) as G times (n, H)."""
    return x.chunk(gates, 1)


def normalised(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of x with mean 0 and variance 1, and 1 / sqrt(var + eps)."""
    centred = x - x.mean(1, keepdim=True)
    rstd = ((centred**2).mean(1, keepdim=True) + eps) ** -0.5
    return centred * rstd, rstd


def part_of_old(
    mask: torch.Tensor | None, zoneout: float, rows: slice
) -> torch.Tensor | float | None:
    """How much of the old state zoneout keeps at a step; None where there is none."""
    if mask is not None:
        return mask[rows].bool() * 1.0
    return zoneout if zoneout > 0 else None
