"""Makes a function one that PyTorch's overrides reach."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from torch.overrides import handle_torch_function, has_torch_function

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
        return function(*args, **kwargs)

    return face
