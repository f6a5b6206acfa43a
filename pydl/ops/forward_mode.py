"""Forward mode of the Functions here, out of their backwards.

A backward is linear in the gradients that come in. Its derivative by these, in the direction of a
tangent, is the transpose of a transpose: what forward mode wants,

    J t = d/du [J^T u] t

So a Function has forward mode as soon as its gradient has a derivative, and no formula of its own.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch._C._functorch import (
    _add_batch_dim,
    get_unwrapped,
    is_batchedtensor,
    maybe_get_bdim,
    maybe_get_level,
)
from torch.autograd import forward_ad


class Result(NamedTuple):
    """What is known of a result of a Function."""

    shape: torch.Size
    dtype: torch.dtype
    is_silent: bool  # has no gradient


def results_of(ctx: Any, output: Any) -> list[Result]:
    """The results of the Function of this context."""
    silent = ctx.non_differentiable or ()
    outputs = output if isinstance(output, tuple) else (output,)
    return [Result(one.shape, one.dtype, any(one is other for other in silent)) for one in outputs]


def with_zeros(
    ctx: Any, tangents: tuple[torch.Tensor | None, ...]
) -> tuple[torch.Tensor | None, ...]:
    """The tangents of the results, with zeros for numbers that have none: of a Function under vmap
    PyTorch does not know which results have no gradient."""
    like = next(one for one in tangents if one is not None)
    return tuple(
        like.new_zeros(result.shape, dtype=result.dtype)
        if one is None and result.dtype.is_floating_point
        else one
        for one, result in zip(tangents, ctx.results, strict=True)
    )


class Still:
    """The context of a Function at which forward mode looks from outside: what was saved does not
    move, for its tangents come in elsewhere, and a gradient is wanted where there is a tangent."""

    def __init__(self, ctx: Any, tangents: Sequence[torch.Tensor | None]) -> None:
        self._ctx = ctx
        self.needs_input_grad = tuple(tangent is not None for tangent in tangents)
        self.saved_tensors = tuple(one if one is None else _still(one) for one in ctx.saved_tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def total(terms: Iterable[torch.Tensor | None]) -> torch.Tensor:
    """The sum of those that are there."""
    return functools.reduce(torch.add, (one for one in terms if one is not None))


def of_product(
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *operands: torch.Tensor,
    along: tuple[torch.Tensor | None, torch.Tensor | None],
) -> list[torch.Tensor]:
    """The terms of a product's derivative in the direction of its two operands' tangents."""
    first, second = operands
    for_first, for_second = along
    pairs = (for_first, second), (first, for_second)
    return [product(one, other) for one, other in pairs if one is not None and other is not None]


def _still(moving: torch.Tensor) -> torch.Tensor:
    """The tensor without its tangent in the innermost forward mode, which vmap cannot take off."""
    if not moving.is_floating_point():
        return moving
    if is_batchedtensor(moving):
        place = maybe_get_bdim(moving), maybe_get_level(moving)
        return _add_batch_dim(_still(get_unwrapped(moving)), *place)
    return forward_ad.unpack_dual(moving).primal


def transposed(
    backward: Callable[..., Any], ctx: Still, tangents: Sequence[torch.Tensor | None]
) -> torch.Tensor | tuple[torch.Tensor | None, ...] | None:
    """The derivatives of a Function's results in the direction of its arguments' tangents.

    Args:
        backward: the Function's.
        ctx: its context, which has the ``results`` of :func:`results_of`.
        tangents: None for arguments that stay.
    """
    like = next(tangent for tangent in tangents if tangent is not None)
    heard = [place for place, result in enumerate(ctx.results) if not result.is_silent]
    zeros = [like.new_zeros(one.shape, dtype=one.dtype) for one in ctx.results if not one.is_silent]

    def along(*given: torch.Tensor) -> torch.Tensor:
        grads: list[torch.Tensor | None] = [None] * len(ctx.results)
        for place, grad in zip(heard, given, strict=True):
            grads[place] = grad
        made = backward(ctx, *grads)
        made = made if isinstance(made, tuple) else (made,)
        return total(
            (grad * tangent).sum()
            for grad, tangent in zip(made, tangents, strict=True)
            if grad is not None and tangent is not None
        )

    pushed = torch.func.grad(along, tuple(range(len(zeros))))(*zeros)
    by_place = dict(zip(heard, pushed, strict=True))
    results = tuple(by_place.get(place) for place in range(len(ctx.results)))
    return results if len(results) > 1 else results[0]
