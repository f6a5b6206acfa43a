"""Where a call of a public function comes in: who takes it over before any argument is checked."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch.compiler import is_compiling
from torch.overrides import handle_torch_function, has_torch_function

from pydl import asked, dispatch, plan
from pydl.plan import Plans
from pydl.tuning.when_new import measured_first

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def entry(
    family: str,
    function: Callable[Arguments, Result],
    stock: Callable[..., Any] | None = None,
    overridable: bool = False,
    plain: Callable[[tuple], bool] | None = None,
) -> Callable[Arguments, Result]:
    """The function as it is to be called: measured first where that is asked for, by PyTorch's own
    at once where nothing else can serve, by its plan (plan.py) where it has one.

    Args:
        family: of its calls.
        function: takes the operator's input first, and ``backend=`` by name.
        stock: PyTorch's function with the same arguments, but for the backend.
        overridable: whether arguments with ``__torch_function__``, and modes, may take over.
        plain: tells by its positional arguments that a call is of no kind that is chosen apart.
    """
    plans = Plans(function)
    least, least_of_plain = dispatch.LEAST_OF_ALL[family], dispatch.LEAST_OF_PLAIN[family]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if overridable:
            # Lists of tensors count too: the boxes of images, a pair of states.
            relevant = (*args, *kwargs.values()) if kwargs else args
            if has_torch_function(relevant):
                return handle_torch_function(call, relevant, *args, **kwargs)
        if is_compiling():
            return function(*args, **kwargs)
        if dispatch.on_miss is not None:
            return measured_first(function, args, kwargs)
        backend = asked.around()
        if backend is None or plan.observers:
            return function(*args, **kwargs)
        named = kwargs.get("backend")
        if args and (backend if named is None else named) == "auto":
            fewest = least if plain is None or not plain(args) else least_of_plain
            if dispatch.is_small(args[0], fewest):
                if stock is not None:
                    kwargs.pop("backend", None)
                    try:
                        return stock(*args, **kwargs)
                    except (TypeError, ValueError, RuntimeError):
                        # What it refuses may only have to be put in another way.
                        kwargs["backend"] = named
                return function(*args, **kwargs)
        return plans.call(args, kwargs, backend)

    return call
