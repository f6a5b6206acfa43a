"""How the learning rate changes from step to step.

Each function here returns a :data:`Schedule`, which :func:`pydl.train.fit` calls once it knows how
many steps there will be. The rates of the optimizer's parameter groups are the highest ones.
"""

import math
from collections.abc import Callable

from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

# From the optimizer, the number of epochs and the steps of each.
Schedule = Callable[[Optimizer, int, int], LRScheduler]


def _part(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} is a part of all steps, in [0, 1), not {value}")
    return value


def constant() -> Schedule:
    """The same rate throughout."""
    return lambda optimizer, epochs, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0)


def step(every: int, factor: float = 0.1) -> Schedule:
    """The rate times ``factor`` after each ``every`` epochs."""
    if every < 1:
        raise ValueError(f"every must be at least one epoch, not {every}")
    return lambda optimizer, epochs, steps: lr_scheduler.StepLR(optimizer, every * steps, factor)


def cosine(warm_up: float = 0.0) -> Schedule:
    """A straight rise over a part of all steps, then half a cosine wave to 0.

    Source: Loshchilov and Hutter 2016, SGDR, without restarts; warm-up: Goyal et al. 2017.
    """
    _part("warm_up", warm_up)

    def make(optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
        total = epochs * steps
        rising = int(warm_up * total)

        def part_of_rate(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return (1 + math.cos(math.pi * (step - rising) / max(1, total - rising))) / 2

        return lr_scheduler.LambdaLR(optimizer, part_of_rate)

    return make


def one_cycle(warm_up: float = 0.3, cycle_momentum: bool = True) -> Schedule:
    """The rate rises from 1/25 over a part of all steps and falls to nearly 0; where the optimizer
    has a momentum, this goes the other way, from 0.95 to 0.85 and back.

    Source: Smith and Topin 2018, Super-Convergence; PyTorch's ``OneCycleLR``.
    """
    _part("warm_up", warm_up)

    def make(optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
        has_momentum = any(
            group.get("momentum") or "betas" in group for group in _groups(optimizer)
        )
        return lr_scheduler.OneCycleLR(
            optimizer,
            [group["lr"] for group in _groups(optimizer)],
            total_steps=epochs * steps,
            pct_start=warm_up,
            cycle_momentum=cycle_momentum and has_momentum,
        )

    return make


def slanted_triangle(rising: float = 0.1, ratio: float = 32.0) -> Schedule:
    """A short straight rise from 1 / ``ratio`` of the rate and a long straight fall back to it.

    Source: Howard and Ruder 2018, ULMFiT, section 3.2.
    """
    _part("rising", rising)

    def make(optimizer: Optimizer, epochs: int, steps: int) -> LRScheduler:
        total = epochs * steps
        cut = max(1, int(rising * total))

        def part_of_rate(step: int) -> float:
            height = step / cut if step < cut else 1 - (step - cut) / max(1, total - cut)
            return (1 + height * (ratio - 1)) / ratio

        return lr_scheduler.LambdaLR(optimizer, part_of_rate)

    return make


def _groups(optimizer: Optimizer) -> list[dict]:
    return optimizer.param_groups
