"""Makes a function one that PyTorch's overrides reach."""

import functools
from collections.abc import Callable

from torch.overrides import handle_torch_function, has_torch_function


def overridable(function: Callable) -> Callable:
    """Lets arguments with ``__torch_function__`` (torch.fx's proxies, tensor subclasses) and modes
    take over a call, as they do with those of :mod:`torch.nn.functional` do."""

    @functools.wraps(function)
    def face(*args: object, **kwargs: object) -> object:
        # Lists of tensors count too: the boxes of images, a pair of states.
        relevant = (*args, *kwargs.values()) if kwargs else args
        if has_torch_function(relevant):
            return handle_torch_function(face, relevant, *args, **kwargs)
        return function(*args, **kwargs)

    return face
