"""Derivatives of a backward pass, for double backward."""

from collections.abc import Callable, Sequence

import torch


def apply(function: type[torch.autograd.Function], *arguments: object) -> torch.Tensor:
    """``function`` inside a backward: recorded where a graph is being made of it, else only
    computed (6 us less)."""
    if torch.is_grad_enabled():
        return function.apply(*arguments)
    return function.forward(_NoContext(), *arguments)


class _NoContext:
    """Stands for the context of a Function whose backward will never run."""

    def save_for_backward(self, *tensors: torch.Tensor) -> None:
        pass


def by_reference(
    function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    tensors: Sequence[torch.Tensor],
    needs_grad: Sequence[bool],
    *grad_results: torch.Tensor,
) -> tuple[torch.Tensor | None, ...]:
    """The gradients of ``function(*tensors)``, differentiating the reference's arithmetic.

    Called from the backward of an ``autograd.Function``; differentiable again where a graph is
    being made of that.

    Args:
        function: from the reference, its other arguments bound.
        tensors: its tensor arguments, as saved by the Function.
        needs_grad: which of them want a gradient.
        grad_results: the gradient of its result, or of each of its results.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [
            tensor
            if create_graph and tensor.requires_grad
            else tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(tensors, needs_grad, strict=True)
        ]
        results = function(*inputs)
    results = results if isinstance(results, tuple) else (results,)
    pairs = [pair for pair in zip(results, grad_results, strict=True) if pair[0].requires_grad]
    wanted = [tensor for tensor, needed in zip(inputs, needs_grad, strict=True) if needed]
    if not pairs or not wanted:
        return (None,) * len(needs_grad)
    outputs, grad_outputs = zip(*pairs, strict=True)
    grads = iter(
        torch.autograd.grad(
            outputs, wanted, grad_outputs, create_graph=create_graph, allow_unused=True
        )
    )
    return tuple(next(grads) if needed else None for needed in needs_grad)


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd has to be told of a call with these operands."""
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )
