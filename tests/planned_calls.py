"""Calls that have launch plans: of a function that counts, and one of each family."""

from collections.abc import Callable

import pytest
import torch
from contract import servers

from pydl import functional, layout, plan
from pydl.plan import Plans


class Twice:
    """A function with plans, that counts how often a call went the whole way."""

    def __init__(self, find_out: Callable[[torch.Tensor], object] = lambda x: None) -> None:
        self.whole, self.find_out = 0, find_out
        self.plans = Plans(self.function)

    def function(self, x: torch.Tensor, factor: float = 2) -> torch.Tensor:
        self.whole += 1
        self.find_out(x)
        y = layout.empty(x.shape, x)
        plan.step(torch.mul, x.detach(), factor, out=y)
        return y

    def __call__(self, *args: object, **kwargs: object) -> torch.Tensor:
        return self.plans.call(args, kwargs)

    def goes_by_a_plan(self, *args: object, **kwargs: object) -> bool:
        before = self.whole
        self(*args, **kwargs)
        return self.whole == before


def x_of(*shape: int, **kind: object) -> torch.Tensor:
    return torch.rand(*(shape or (2, 3, 4, 4)), **kind)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape) + 0.5


def _outputs_of_gru(*args: object, **named: object) -> torch.Tensor:
    return functional.gru(*args, **named)[0]


BOXES = torch.tensor([[0.0, 0, 1, 4, 5], [0, 1, 1, 5, 3]])
# A call of each family: its function, and its arguments, no two of which share memory.
CALLS: dict[str, tuple[Callable, Callable[[], tuple]]] = {
    "conv": (
        functional.conv2d,
        lambda: (random(1, 4, 6, 6), random(4, 1, 3, 3), random(4), 1, 1, 1, 4),
    ),
    "bias_act": (functional.relu, lambda: (random(1, 4, 6, 6),)),
    "batch_norm": (
        functional.batch_norm,
        lambda: (random(2, 4, 6, 6), *(random(4) for _ in range(4)), True),
    ),
    "local": (
        functional.locally_connected2d,
        lambda: (random(1, 2, 4, 4), random(3, 2, 2, 2, 3, 3), random(3, 3, 3)),
    ),
    "pool": (functional.max_pool2d, lambda: (random(1, 4, 6, 6), 2)),
    "pool_lp": (functional.lp_pool2d, lambda: (random(1, 4, 6, 6), 2, 2)),
    "pool_adaptive": (functional.adaptive_avg_pool2d, lambda: (random(1, 4, 6, 6), 4)),
    "lrn": (functional.local_response_norm, lambda: (random(1, 4, 6, 6), 3)),
    "spatial_norm": (functional.spatial_response_norm, lambda: (random(1, 4, 6, 6), 3)),
    "softmax": (functional.softmax, lambda: (random(4, 8), 1)),
    "cross_entropy": (
        functional.cross_entropy,
        lambda: (random(4, 8), torch.arange(4)),
    ),
    "dropout": (functional.dropout, lambda: (random(1, 4, 6, 6), 0.5)),
    "rnn_cell": (
        functional.gru_cell,
        lambda: (random(2, 4), random(2, 8), random(24, 4), random(24, 8), random(24), random(24)),
    ),
    "rnn": (
        _outputs_of_gru,
        lambda: (random(3, 2, 4), random(24, 4), random(24, 8), random(24), random(24)),
    ),
    "roi": (functional.roi_align, lambda: (random(1, 4, 6, 6), BOXES.clone(), 3)),
}


def call(family: str, device: str) -> tuple[Callable, tuple, list[torch.Tensor]]:
    """A function, its arguments, and those of them that have a gradient."""
    function, made = CALLS[family]
    args = tuple(one.to(device) if isinstance(one, torch.Tensor) else one for one in made())
    floating = [one for one in args if isinstance(one, torch.Tensor) and one.is_floating_point()]
    first = function in (functional.batch_norm, functional.roi_align)  # then statistics, boxes
    return function, args, floating[:1] if first else floating


# Each with every backend of kernels that serves it, and where.
EACH = [
    pytest.param(family, *one.values[0], marks=one.marks, id=f"{family}-{one.id}")
    for family in CALLS
    for one in servers(family)
    if one.values[0][0] in ("cpu", "triton", "cuda")
]
