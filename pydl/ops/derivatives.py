"""Derivatives of a backward pass, for double backward."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pydl import plan
from pydl.backends import transformed


class Function(torch.autograd.Function):
    """The base of every Function here, written as torch.func wants them: ``forward`` without a
    context, ``setup_context`` beside it; what the backward needs is an input or an output."""

    generate_vmap_rule = True

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """PyTorch's ``apply`` without what it does for keyword arguments (20 us)."""
        if torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)
        # PyTorch's stubs do not have it.
        own = super(torch.autograd.Function, cls).apply  # type: ignore[misc]
        return plan.step(own, *arguments)


def apply(function: type[Function], *arguments: Any) -> Any:
    """``function`` inside a backward: recorded where a graph is being made of it, else only
    computed (6 us less)."""
    recorded = torch.is_grad_enabled() or transformed()
    if recorded and not torch.compiler.is_compiling():
        return function.apply(*arguments)
    return function.forward(*arguments)


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
    if torch._C._are_functorch_transforms_active():
        return _by_vjp(function, tensors, needs_grad, *grad_results)
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


def _by_vjp(
    function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    tensors: Sequence[torch.Tensor],
    needs_grad: Sequence[bool],
    *grad_results: torch.Tensor,
) -> tuple[torch.Tensor | None, ...]:
    """:func:`by_reference` inside a transform of torch.func, which forbids ``requires_grad_``."""
    wanted = [index for index, needed in enumerate(needs_grad) if needed]
    if not wanted:
        return (None,) * len(needs_grad)

    def of_wanted(*chosen: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        given = list(tensors)
        for index, tensor in zip(wanted, chosen, strict=True):
            given[index] = tensor
        return function(*given)

    # Three, to PyTorch's annotations, where it would return what it does with has_aux=True.
    results, pull = torch.func.vjp(  # type: ignore[misc]
        of_wanted, *(tensors[index] for index in wanted)
    )
    grads = dict(
        zip(
            wanted,
            pull(grad_results if isinstance(results, tuple) else grad_results[0]),
            strict=True,
        )
    )
    return tuple(grads.get(index) for index in range(len(needs_grad)))


def needs_grad(*tensors: torch.Tensor | None) -> bool:
    """Whether autograd, or what torch.func and forward mode put in its place, has to be told of a
    call with these operands."""
    return transformed() or (
        torch.is_grad_enabled()
        and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    )
