"""Truncated backpropagation through time on text, and writing with what was learned."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pydl import functional
from pydl.models.char_lm import CharLM
from pydl.text import dataset

STEPS_OF_TIME, STREAMS = 64, 32  # characters of a batch, along time and side by side
_RATE = 4e-3
_CLIP = 1.0  # the largest norm of the gradient


@dataclass(frozen=True)
class Step:
    """An update of the weights: its number from 1, the loss in bits per character before it."""

    number: int
    bits: float
    seconds: float  # since training began


def streams(text: torch.Tensor, count: int = STREAMS) -> torch.Tensor:
    """``text`` cut into ``count`` streams side by side: (characters of a stream, count)."""
    return text[: len(text) // count * count].view(count, -1).t().long()


def _detached(state: Any) -> Any:
    return tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()


def _bits(scores: torch.Tensor, text: torch.Tensor, ours: bool) -> torch.Tensor:
    """The mean cross entropy of (T, B, characters) scores, in bits."""
    cross_entropy = functional.cross_entropy if ours else nn.functional.cross_entropy
    return cross_entropy(scores.flatten(0, 1), text.flatten()) / math.log(2)


def train(
    model: CharLM, text: dataset.Text, *, steps: int, seed: int = 0, ours: bool = True
) -> Iterator[Step]:
    """Trains by Adam, a rate that rises to 0.004 over the first 5 % of the steps and falls to 0.

    The state goes from one batch to the next, gradients do not; where a stream ends, all begin
    again at other places.

    Args:
        model: trained in place.
        text: what to learn from.
        steps: how many updates.
        seed: of the places where streams begin.
        ours: whether the loss is computed by this package or by PyTorch.

    Yields:
        Every step's figures.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), _RATE)
    rising = max(1, steps // 20)

    def part_of_rate(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, part_of_rate)
    model.train()
    state, side_by_side, at = None, None, 0
    began = time.perf_counter()
    for number in range(1, steps + 1):
        if side_by_side is None or at + STEPS_OF_TIME >= len(side_by_side):
            first = int(torch.randint(len(text.train) // 2, (), generator=generator))
            side_by_side, state, at = streams(text.train.roll(-first)), None, 0
        batch = side_by_side[at : at + STEPS_OF_TIME + 1]
        at += STEPS_OF_TIME
        scores, state = model(batch[:-1], state)
        state = _detached(state)
        bits = _bits(scores, batch[1:], ours)
        optimizer.zero_grad()
        bits.backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        schedule.step()
        yield Step(number, bits.item(), time.perf_counter() - began)


@torch.no_grad()
def bits_per_character(model: CharLM, text: torch.Tensor) -> float:
    """The mean cross entropy of each character of ``text`` given those before it in its stream."""
    model.eval()
    state, total, count = None, 0.0, 0
    side_by_side = streams(text)
    for batch in side_by_side[:-1].split(STEPS_OF_TIME):
        after = side_by_side[count + 1 : count + 1 + len(batch)]
        scores, state = model(batch, state)
        total += _bits(scores, after, ours=True).item() * len(batch)
        count += len(batch)
    model.train()
    return total / count


@torch.no_grad()
def write(
    model: CharLM, start: str, length: int, *, temperature: float = 0.7, seed: int = 0
) -> str:
    """Lets the model go on from ``start``, drawing each next character by its probability.

    Args:
        model: left in the mode it was in.
        start: at least one character.
        length: how many characters to write.
        temperature: scores are divided by it; towards 0 the likeliest character always wins.
        seed: of the draws.

    Returns:
        ``start`` and what was written.
    """
    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    numbers = dataset.encode(start).long()
    scores, state = model(numbers[:, None])
    written = [numbers]
    for _ in range(length):
        odds = functional.softmax(scores[-1, 0] / temperature, 0)
        written.append(torch.multinomial(odds, 1, generator=generator))
        scores, state = model(written[-1][:, None], state)
    model.train(training)
    return dataset.decode(torch.cat(written))
