"""Derivatives of a backward pass, for double backward."""

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch._functorch.autograd_function import CtxWithSavedTensors
from torch.autograd import forward_ad
from torch.autograd.function import FunctionMeta

from pydl import plan
from pydl.backends import differentiated, transformed
from pydl.layout import unmapped
from pydl.ops.forward_mode import Still, results_of, transposed, with_zeros
from pydl.recorder import STALE, holds_tensors


class Function(torch.autograd.Function):
    """The base of every Function here, written as torch.func wants them: ``forward`` without a
    context, ``setup_context`` beside it; what the backward needs is an input or an output, kept by
    :func:`save`."""

    generate_vmap_rule = True

    @classmethod
    def push(cls, ctx: Still, *tangents: torch.Tensor | None) -> Any:
        """The derivatives of the results in the direction of the arguments' tangents, of which at
        least one is there. What is linear in its arguments says it in a call of its own."""
        return transposed(cls.backward, ctx, tangents)

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        """PyTorch's ``apply`` without what it does for keyword arguments (20 us)."""
        if transformed():
            return super(Function, _with_jvp(cls)).apply(*map(_whole, arguments))
        recorder = plan.recording()
        # PyTorch's stubs do not have it.
        if recorder is None:
            return super(torch.autograd.Function, cls).apply(*arguments)  # type: ignore[misc]
        way, silent = _Way(cls, arguments), recorder.box()
        heard = plan.step(_planned(cls.__name__, way), silent, *way.tensors(arguments))
        recorder.filled(silent)
        if holds_tensors(way.constants):
            recorder.fail()
        return way.joined(heard, silent)


@functools.cache
def _with_jvp(function: type[Function]) -> type[Function]:
    """The Function with PyTorch's name for ``push``, with which torch.compile takes none."""
    if "jvp" in vars(function):
        return function
    made = FunctionMeta(function.__name__, (function,), {"jvp": classmethod(_jvp)})
    return cast("type[Function]", made)


def _jvp(function: type[Function], ctx: Any, *tangents: torch.Tensor | None) -> Any:
    """``push``. PyTorch comes with zeros for tensors that stay, and does not follow tangents
    meanwhile: neither these nor those that this is itself pushed along."""
    moving = [None if _stays(one) else one for one in tangents]
    with forward_ad._set_fwd_grad_enabled(True):
        pushed = function.push(Still(ctx, moving), *moving)
        several = isinstance(pushed, tuple) and type(ctx) is CtxWithSavedTensors
        return with_zeros(ctx, pushed) if several else pushed


class _Whole(tuple):
    """A tuple that PyTorch does not look into: under vmap it takes the tangents of a Function's
    arguments for those of what these hold."""


def _whole(argument: Any) -> Any:
    return _Whole(argument) if isinstance(argument, tuple | list) else argument


def _stays(tangent: torch.Tensor | None) -> bool:
    return tangent is None or tangent._is_zerotensor()


def save(ctx: Any, output: Any, *tensors: torch.Tensor | None) -> None:
    """Keeps these for the backward and, where it is on, for forward mode. What has no gradient has
    been marked before."""
    ctx.save_for_backward(*tensors)
    if transformed():
        ctx.save_for_forward(*tensors)
        ctx.results = results_of(ctx, output)


class _Way:
    """How the calls of one plan go through a Function, forward and backward: by plans. Autograd is
    told of what it may differentiate and of nothing else, for each thing takes it time: constants
    stay here, and so do results without elements, the same for all calls; results that have no
    gradient go past it.

    Attributes:
        forward: from the tensors, the results that have a gradient, those that have none, and what
            is saved, without what has no elements.
        backward: from what was saved and the gradients of these results, those of the tensors.
    """

    def __init__(self, function: type[Function], arguments: tuple) -> None:
        self._function = function
        self._is_tensor = [isinstance(one, torch.Tensor) for one in arguments]
        self.constants = [one for one in arguments if not isinstance(one, torch.Tensor)]
        self._context = _Context()
        self._saved = 0
        self._is_many = False  # whether the result is a tuple, be it of one
        self._is_silent: list[bool] = []  # of each result, whether it has no gradient
        # Of each silent result and of each that is saved, itself if it has no elements.
        self._empty: list[torch.Tensor | None] = []
        self._empty_saved: list[torch.Tensor | None] = []
        self.materializes = True
        self.forward = plan.Part(self._forward)
        self.backward = plan.Plans(self._backward)

    def tensors(self, arguments: tuple) -> tuple[torch.Tensor, ...]:
        """Those among the Function's arguments."""
        return tuple(itertools.compress(arguments, self._is_tensor))

    def joined(self, heard: Any, silent: Sequence[torch.Tensor]) -> Any:
        """The results of the Function."""
        silent = _with(self._empty, silent)
        outputs = _merged(self._is_silent, silent, heard if type(heard) is tuple else (heard,))
        return outputs if self._is_many else outputs[0]

    def _forward(self, *tensors: torch.Tensor) -> tuple[Any, tuple, tuple]:
        given = _merged(self._is_tensor, tensors, self.constants)
        output, context = self._function.forward(*given), _Context()
        self._function.setup_context(context, given, output)
        context.needs_input_grad = tuple(getattr(one, "requires_grad", False) for one in given)
        saved, silent = context.saved_tensors, context.non_differentiable
        context.saved_tensors = context.non_differentiable = ()  # which are of this call alone
        self._is_many = isinstance(output, tuple)
        outputs = output if isinstance(output, tuple) else (output,)
        is_silent = [any(one is other for other in silent) for one in outputs]
        heard = tuple(itertools.compress(outputs, map(operator.not_, is_silent)))
        silent = tuple(itertools.compress(outputs, is_silent))
        self._empty = [one if one.numel() == 0 else None for one in silent]
        self._empty_saved = [
            one if any(one is other for other in self._empty) else None for one in saved
        ]
        silent, saved = _without(self._empty, silent), _without(self._empty_saved, saved)
        self._context, self._saved, self._is_silent = context, len(saved), is_silent
        self.materializes = context.materializes
        return heard[0] if len(heard) == 1 else heard, silent, saved

    def _backward(self, *given: Any) -> tuple[torch.Tensor | None, ...]:
        context, heard = _Context(), given[self._saved :]
        saved = _with(self._empty_saved, given[: self._saved])
        vars(context).update(vars(self._context), saved_tensors=saved)
        silent = [None] * sum(self._is_silent)
        grads = self._function.backward(context, *_merged(self._is_silent, silent, heard))
        grads = grads if isinstance(grads, tuple) else (grads,)
        return None, *itertools.compress(grads, self._is_tensor)


def _merged(is_one: Sequence[bool], ones: Iterable, others: Iterable) -> tuple:
    """Two in one, the next of the ones where it is one's turn."""
    ones, others = iter(ones), iter(others)
    return tuple(next(ones if one else others) for one in is_one)


def _without(kept: Sequence, all: tuple) -> tuple:
    """Those in whose place nothing is kept."""
    return tuple(one for one, instead in zip(all, kept, strict=True) if instead is None)


def _with(kept: Sequence, others: Iterable) -> tuple:
    """All again: what is kept, and of the others in its place where nothing is."""
    others = iter(others)
    return tuple(next(others) if one is None else one for one in kept)


class _Context:
    """What a Function does with its context, written down."""

    def __init__(self) -> None:
        self.saved_tensors: tuple = ()
        self.non_differentiable: tuple = ()
        self.needs_input_grad: tuple[bool, ...] = ()
        self.materializes = True

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: torch.Tensor) -> None:
        self.non_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self.materializes = value


def _planned(name: str, way: _Way) -> Callable[..., Any]:
    """The ``apply`` of a Function that goes this way: from a list, for the results that have no
    gradient, and the tensors. No transform comes here."""
    part, plans = way.forward, way.backward

    def forward(ctx: Any, silent: list[torch.Tensor], *tensors: torch.Tensor) -> Any:
        made = part.again(*tensors)
        if made is STALE:
            made = part.recorded(tensors)
        heard, others, saved = made
        silent += others
        ctx.save_for_backward(*saved)
        if not way.materializes:
            ctx.set_materialize_grads(False)
        return heard

    def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
        given = *ctx.saved_tensors, *grads
        made = plans.last.next.run_if_it_fits(*given)
        return plans.call(given, {}) if made is STALE else made

    body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    made = FunctionMeta(name, (torch.autograd.Function,), body)
    return super(torch.autograd.Function, made).apply  # type: ignore[misc]


def apply(function: type[Function], *arguments: Any) -> Any:
    """``function`` inside a backward: recorded where a graph is being made of it, else only
    computed (6 us less)."""
    return (function.apply if recorded() else function.forward)(*arguments)


def recorded() -> bool:
    """Whether a graph is being made of a backward."""
    return (torch.is_grad_enabled() or transformed()) and not torch.compiler.is_compiling()


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
    if transformed():
        if torch.compiler.is_compiling() or differentiated():
            return True
        tensors = tuple(one if one is None else unmapped(one) for one in tensors)
    return torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in tensors
    )
