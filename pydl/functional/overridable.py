"""Makes a function one that PyTorch's overrides reach, and that is measured where it is to be."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch.compiler import is_compiling
from torch.overrides import handle_torch_function, has_torch_function

from pydl import dispatch
from pydl.tuning.when_new import measured_first

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def overridable(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Lets arguments with ``__torch_function__`` (torch.fx's proxies, tensor subclasses) and modes
    take over a call, as they do with those of :mod:`torch.nn.functional`."""

    @functools.wraps(function)
    def face(*args: Any, **kwargs: Any) -> Any:
        # Lists of tensors count too: the boxes of images, a pair of states.
        relevant = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(relevant):
            return handle_torch_function(face, relevant, *args, **kwargs)
        if dispatch.on_miss is None or is_compiling():
            return function(*args, **kwargs)
        return measured_first(function, args, kwargs)

    return face
