"""Methods of layers that leave at once to torch.nn's what PyTorch's own operator serves.

In a model of small layers a call of Python code costs more than in a loop over one of them: every
layer's data drives the code of the one before out of the processor's cache. So ``forward`` itself
asks the least that tells that a call is PyTorch's, and then goes the way that torch.nn goes.
"""

import functools
import sys
import types
from collections.abc import Callable
from math import inf
from typing import Any

from torch import Tensor
from torch.compiler import is_compiling

from pydl import asked, dispatch, plan

COMPUTES = ("forward", "_conv_forward")  # the methods by which a layer computes its result
# Whose functions take more than PyTorch's of the same name, or choose in a way of their own.
_OTHERS = ("pool_lp", "rnn", "rnn_cell", "roi")


def _of_convolution(layer: Any) -> str:
    return "depthwise" if layer.groups in (layer.in_channels, layer.out_channels) else "conv"


def _of_batch_norm(layer: Any) -> str:
    return "batch_norm" if layer.training else "batch_norm_inference"


# Of these families, what the dispatch table decides on together.
_KINDS = {"conv": _of_convolution, "batch_norm": _of_batch_norm}


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
    # the method are not this module's.
    modules, compiling, chosen, watched = sys.modules, is_compiling, asked.chosen, plan.watched
    tensor, endless, least = Tensor, inf, dispatch.LEAST_OF_ALL[family]
    kind = _KINDS.get(family)

    def is_pytorchs(layer: object, input: Tensor) -> bool:
        return dispatch.is_pytorchs(family, kind(layer) if kind else None, input)

    def at_once(self, input, *args, **kwargs):
        if (
            ("torch._dynamo" not in modules or not compiling())
            and type(input) is tensor
            and (input.numel() < least.get(input.dtype, endless) or is_pytorchs(self, input))
            and input.is_cpu
            and self._pydl_backend is None
            and chosen() is None
            and not watched
        ):
            return theirs(self, input, *args, **kwargs)
        return ours(self, input, *args, **kwargs)

    def always(self, *args, **kwargs):
        return ours(self, *args, **kwargs)

    parameters = theirs.__code__.co_varnames[1 : theirs.__code__.co_argcount]
    plain = parameters[:1] == ("input",) and family not in _OTHERS and asked.PROCESS == "auto"
    code = at_once if plain else always
    made = types.FunctionType(
        code.__code__,
        like.__globals__,
        like.__name__,
        None,
        code.__closure__,
    )
    functools.update_wrapper(made, like)
    made.__wrapped__ = like  # type: ignore[attr-defined]
    return made


_CODES = [one for one in method.__code__.co_consts if isinstance(one, types.CodeType)]


def is_made(function: object) -> bool:
    """Whether :func:`method` made it."""
    return isinstance(function, types.FunctionType) and function.__code__ in _CODES
