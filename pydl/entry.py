"""Where a call of a public function comes in: who takes it over before any argument is checked."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_dynamo_compiling
from torch.overrides import handle_torch_function, has_torch_function

from pydl import dispatch, plan
from pydl.asked import around
from pydl.backends import NOT_IN_PYTORCH
from pydl.plan import STALE, Plans
from pydl.tuning.when_new import measured_first

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_PLANNED = frozenset(("auto", "cpu", "triton", "cuda"))  # whose calls have plans
_OPEN = (None, "auto")  # what a call says that leaves the choice open
_NOTHING = (None,)  # has an override only where a mode overrides everything


def entry(
    family: str,
    function: Callable[Arguments, Result],
    stock: Callable[..., Any] | None = None,
    overridable: bool = False,
    bounds_of: Callable[[tuple], dispatch.Bounds] | None = None,
) -> Callable[Arguments, Result]:
    """The function as it is to be called: measured first where that is asked for, by PyTorch's own
    at once where nothing else can serve, by its plan (plan.py) where it has one.

    Args:
        family: of its calls.
        function: takes the operator's input first, and ``backend=`` by name.
        stock: PyTorch's function with the same arguments, but for the backend.
        overridable: whether arguments with ``__torch_function__``, and modes, may take over.
        bounds_of: tells by its positional arguments, as far as there are any, within which bounds
            it may not be PyTorch's; if not given, those of the family.
    """
    plans = Plans(function)
    bounds, possible = dispatch.bounds_of_family(family), family not in NOT_IN_PYTORCH
    at_once: Callable[..., Any] = stock or functools.partial(cast(Any, function), backend="auto")

    def is_pytorchs(input: Tensor, args: tuple) -> bool:
        if not possible:
            return False
        return not bounds or dispatch.is_pytorchs(bounds_of(args) if bounds_of else bounds, input)

    @functools.wraps(function)
    def call(*args: Any, backend: str | None = None, **kwargs: Any) -> Any:
        # Where PyTorch's function serves, every test that is made first is a loss.
        if args and backend in _OPEN and not is_compiling():
            input = args[0]
            if (
                type(input) is Tensor
                and input.is_cpu
                and is_pytorchs(input, args)
                and not has_torch_function((*args, *kwargs.values()) if kwargs else args)
                and plan.awake <= plan.BLOCKS
                and (backend or around()) == "auto"
            ):
                try:
                    return at_once(*args, **kwargs)
                except (TypeError, ValueError, RuntimeError):
                    pass  # what it refuses may only have to be put in another way
        kwargs["backend"] = backend
        outer = None
        if not is_dynamo_compiling():
            outer = around() if backend is None else backend
        if outer is not None and not (overridable and has_torch_function(_NOTHING)):
            result = plans.likely(args, kwargs, outer)
            if result is not STALE:
                return result
        if overridable:
            # Lists of tensors count too: the boxes of images, a pair of states.
            relevant = *args, *kwargs.values()
            if has_torch_function(relevant):
                return handle_torch_function(call, relevant, *args, **kwargs)
        if is_compiling():
            return function(*args, **kwargs)
        if dispatch.on_miss is not None:
            return measured_first(function, args, kwargs)
        if outer is None:
            return function(*args, **kwargs)
        return plans.by_key(args, kwargs, outer)

    return cast(Callable[Arguments, Result], call)


def module_call(plans: Plans, args: tuple, backend: str | None) -> Any:
    """``plans.function(*args)``, by its plan where there is one: of a module's forward, its weights
    among the arguments.

    Args:
        backend: the module's.
    """
    if is_compiling():
        return plans.function(*args)
    outer = around() if backend is None else backend
    # What is to be measured first is asked for on the whole way alone.
    if outer not in _PLANNED or (outer == "auto" and dispatch.on_miss is not None):
        return plans.function(*args)
    return plans.call(args, {}, outer)


class HasTensors(Protocol):
    """A module."""

    _parameters: dict[str, torch.nn.Parameter | None]
    _buffers: dict[str, Tensor | None]


def held(module: HasTensors, name: str) -> Any:
    """A module's parameter or buffer, or what pruning, a parametrization or a replica has in its
    place: as getattr finds it, in a fifth of the time."""
    found: Tensor | None = module._parameters.get(name)
    if found is None:
        found = module._buffers.get(name)
    return getattr(module, name) if found is None else found
