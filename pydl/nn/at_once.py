"""Methods of layers that leave at once to torch.nn's what PyTorch's own operator serves.

In a model of small layers a call of Python code costs more than in a loop over one of them: every
layer's data drives the code of the one before out of the processor's cache. So ``forward`` itself
asks the least that tells that a call is PyTorch's, and then goes the way that torch.nn goes.
"""

import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from torch import Tensor, float32
from torch._C import _are_functorch_transforms_active, _is_any_autocast_enabled
from torch.autograd import forward_ad
from torch.compiler import is_dynamo_compiling

from pydl import asked, dispatch, plan
from pydl.backends import NOT_IN_PYTORCH
from pydl.ops.pool_adaptive import kind_of_average

COMPUTES = ("forward", "_conv_forward")  # the methods by which a layer computes its result


class _Question(NamedTuple):
    """By what a method finds the bounds within which a call is not PyTorch's."""

    others: dispatch.Bounds  # where the attribute says nothing
    attribute: str = "training"  # of the layer
    bounds: Mapping[Any, dispatch.Bounds] = {}  # by its value
    exact: Callable[[Any], dispatch.Bounds] | None = None  # narrower ones than these, of a layer


def _question(family: str, name: str) -> _Question:
    """Of a class of layers by its family and name."""
    bounds = dispatch.bounds
    if family == "batch_norm":
        in_evaluation = {False: bounds("batch_norm_inference")}
        return _Question(bounds(family), bounds=in_evaluation)
    if family == "dropout":
        return _Question(bounds(family), bounds={False: {}})
    if family == "rnn_cell":
        return _Question(bounds(family, function=f"{name.removesuffix('Cell').lower()}_cell"))
    if family == "rnn":  # with options it is never torch.nn's
        return _Question(bounds("rnn", "rnn_short", "rnn_lstm"))
    if family == "pool_lp":  # an infinite power is a maximum, where PyTorch's is not a number
        infinite = {math.inf: _NEVER, -math.inf: _NEVER}
        return _Question(dispatch.bounds_of_family(family), "norm_type", infinite)
    if family not in ("conv", "pool", "pool_adaptive"):
        return _Question(dispatch.bounds_of_family(family))
    kind, function = dispatch.deciding(family, name)
    if family == "conv":
        return _Question(bounds(kind, function=function), "groups", {1: bounds("conv")})
    if family == "pool":
        return _Question(bounds(kind, function=function))
    if "Max" in name:
        return _Question(dispatch.bounds_of_family(family))
    of = {one: bounds(one, function=function) for one in (kind, "pool_global")}
    both = bounds(*of, function=function)
    return _Question(both, exact=lambda layer: of[kind_of_average(layer.output_size)])


class _Always(dict):
    """The bounds of a layer that computes something else than torch.nn's."""

    def get(self, key: Any, default: Any = None) -> Any:
        return 0, frozenset((dispatch.Bound(0, None, False),))


_NEVER = _Always({None: dispatch.NO_BOUNDS})  # not empty


def _nobody_chose() -> bool:
    """Whether nothing is awake but blocks of use_backend, none of which is around this call."""
    return not is_dynamo_compiling() and plan.awake <= plan.BLOCKS and asked.chosen() is None


def method(
    theirs: types.FunctionType, ours: Callable, layer: type, like: Callable | None = None
) -> types.FunctionType:
    """``ours``, but for the calls that the dispatch table leaves to PyTorch: ``theirs``.

    Args:
        theirs: the method of torch.nn's class.
        ours: the method of ``layer``.
        layer: the class of pydl.nn.
        like: whose name, signature, source and globals it has; if not given, those of ``ours``.
    """
    family = layer.__module__.rpartition(".")[2]
    ours = ours.__wrapped__ if is_made(ours) else ours  # type: ignore[attr-defined]
    like = like or ours
    # Each name costs a cache miss, so there are few; all are in the closure, since the globals of
    # the method are not this module's. A table that is read again fills the same bounds.
    tensor, compiling, block, awake = Tensor, is_dynamo_compiling, asked, plan.awake
    nobody_chose, none = _nobody_chose, dispatch.NO_BOUNDS
    transforms, forward_mode = _are_functorch_transforms_active, forward_ad
    autocast, single, is_cell = _is_any_autocast_enabled, float32, family == "rnn_cell"
    others, attribute, bounds_by, exact = _question(family, layer.__name__)

    def is_pytorchs(layer: Any, bounds: dispatch.Bounds, input: Tensor) -> bool:
        if dispatch.is_pytorchs(bounds, input):
            return True
        return exact is not None and dispatch.is_pytorchs(exact(layer), input)

    def at_once(self, input, *args, **kwargs):
        if (
            type(input) is tensor
            and input.is_cpu
            and self._pydl_backend is None
            and (not awake or nobody_chose())
            and block.traced is None
        ):
            bounds = bounds_by.get(getattr(self, attribute), others)
            if not bounds or (
                not compiling()  # where sizes would become guards
                and (
                    input.numel() < bounds.get(input.dtype, none)[0]
                    or is_pytorchs(self, bounds, input)
                )
            ):
                return theirs(self, input, *args, **kwargs)
        return ours(self, input, *args, **kwargs)

    def recurrent_at_once(self, input, *args, **kwargs):
        # It may have options that torch.nn's has not, and what PyTorch calls has no vmap
        # (backends.transformed, without its two calls). Autocast makes of a layer what PyTorch may
        # not serve.
        if (
            type(input) is tensor
            and input.is_cpu
            and self._pydl_backend is None
            and (not awake or nobody_chose())
            and not compiling()
            and (not others or input.numel() < others.get(input.dtype, none)[0])
            and (is_cell or (input.dtype is single and not autocast()))
            and not transforms()
            and forward_mode._current_level < 0
            and "_pydl_options" not in self.__dict__
        ):
            return theirs(self, input, *args, **kwargs)
        return ours(self, input, *args, **kwargs)

    def always(self, *args, **kwargs):
        return ours(self, *args, **kwargs)

    parameters = theirs.__code__.co_varnames[1 : theirs.__code__.co_argcount]
    in_pytorch = family not in NOT_IN_PYTORCH
    plain = parameters[:1] == ("input",) and in_pytorch and asked.PROCESS == "auto"
    possible = recurrent_at_once if family in ("rnn", "rnn_cell") else at_once
    code = possible if plain else always
    return standing_for(like, code)


def standing_for(like: Callable, code: Callable) -> types.FunctionType:
    """``code`` as a method with the name, signature, source and globals of ``like``."""
    like, code = cast(types.FunctionType, like), cast(types.FunctionType, code)
    made = types.FunctionType(
        code.__code__, like.__globals__, like.__name__, None, code.__closure__
    )
    functools.update_wrapper(made, like)
    made.__wrapped__ = like  # type: ignore[attr-defined]
    CODES.add(code.__code__)
    return made


CODES: set[types.CodeType] = set()  # of what standing_for has made


def leave(layer: type, base: type) -> None:
    """Lets the methods of a class of layers leave to torch.nn's class what is PyTorch's."""
    for name in COMPUTES:
        ours, theirs = getattr(layer, name, None), getattr(base, name, None)
        if ours and theirs and ours is not theirs:
            setattr(layer, name, method(theirs, ours, layer))


def is_made(function: object) -> bool:
    """Whether :func:`standing_for` made it."""
    return isinstance(function, types.FunctionType) and function.__code__ in CODES
