"""What a decoder writes by itself: the likeliest symbol at each step, or the likeliest of several
whole texts that are kept side by side."""

from typing import NamedTuple

import torch

from pydl import functional
from pydl.models.sequence.attention import Memory
from pydl.models.sequence.decoder import BEGIN, END, PADDING, Decoder, State


class Written(NamedTuple):
    """What was written from each memory, up to and with its END, and PADDING behind that."""

    symbols: torch.Tensor  # [T, B], int64
    weights: torch.Tensor  # [T, B, S]: of the memory, when each symbol was written
    log_probability: torch.Tensor  # [B], of all the symbols of a text together


def _likely(scores: torch.Tensor) -> torch.Tensor:
    """Logarithms of the probabilities (N, symbols); what no text has, PADDING and BEGIN, is never
    written."""
    found = functional.log_softmax(scores, 1)
    found[:, [PADDING, BEGIN]] = -torch.inf
    return found


@torch.no_grad()
def greedy(decoder: Decoder, state: State, memory: Memory, longest: int) -> Written:
    """The likeliest symbol at each step, until every text has ended or has ``longest`` symbols."""
    written = state[0].new_full((len(state[0]),), BEGIN, dtype=torch.int64)
    ended = torch.zeros_like(written, dtype=torch.bool)
    total = state[0].new_zeros(len(written))
    symbols, weights = [], []
    for _ in range(longest):
        scores, state, weight = decoder.step(written, state, memory)
        best, written = _likely(scores).max(1)
        total += best.masked_fill(ended, 0)
        written = written.masked_fill(ended, PADDING)
        symbols.append(written)
        weights.append(weight)
        ended = ended | (written == END)
        if ended.all():
            break
    return Written(torch.stack(symbols), torch.stack(weights), total)


@torch.no_grad()
def beam(
    decoder: Decoder,
    state: State,
    memory: Memory,
    longest: int,
    width: int = 5,
    *,
    normalise: float = 0.0,
) -> Written:
    """Beam search: of all texts that are a symbol longer than those kept, the ``width`` likeliest
    are kept, ended ones among them as they are.

    Args:
        decoder: in evaluation mode.
        state, memory: of B examples.
        longest: symbols of a text at most, its END included.
        width: how many are kept; 1 is :func:`greedy`.
        normalise: in the end that text wins whose logarithm of the probability is greatest, divided
            by its number of symbols to this power.

    Raises:
        ValueError: ``width`` or ``longest`` is less than 1.
    """
    if width < 1 or longest < 1:
        raise ValueError(f"width and longest must be at least 1, got {width} and {longest}")
    examples, device = len(state[0]), state[0].device
    first = torch.arange(examples, device=device)[:, None]  # [B, 1]
    rows = first.expand(-1, width).flatten()
    state, memory = tuple(part[rows] for part in state), memory.select(rows)
    written = torch.full((examples * width,), BEGIN, device=device)
    ended = torch.zeros(examples, width, dtype=torch.bool, device=device)
    # All begin alike: one of them counts, or the beam would hold copies of the same text.
    total = state[0].new_full((examples, width), -torch.inf)
    total[:, 0] = 0
    symbols = torch.empty(0, examples, width, dtype=torch.int64, device=device)
    weights = memory.values.new_empty(0, examples, width, memory.values.shape[1])
    for _ in range(longest):
        scores, state, weight = decoder.step(written, state, memory)
        gained = _likely(scores).view(examples, width, -1)
        nothing = torch.full_like(gained, -torch.inf)
        nothing[..., PADDING] = 0  # what goes on behind an end
        gained = torch.where(ended[..., None], nothing, gained)
        count = gained.shape[2]
        total, best = (total[..., None] + gained).flatten(1).topk(width, 1)  # [B, width]
        origin, next_one = best // count, best % count
        rows = (first * width + origin).flatten()
        state = tuple(part[rows] for part in state)
        weight = weight.view(examples, width, -1)
        symbols = torch.cat([symbols[:, first, origin], next_one[None]])
        weights = torch.cat([weights[:, first, origin], weight[first, origin][None]])
        ended = ended[first, origin] | (next_one == END)
        written = next_one.flatten()
        if ended.all():
            break
    lengths = (symbols != PADDING).sum(0).clamp_min(1)
    winner = (total / lengths**normalise).argmax(1)
    example = first[:, 0]
    return Written(symbols[:, example, winner], weights[:, example, winner], total[example, winner])
