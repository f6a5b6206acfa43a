"""Softmax of arrays along one axis; definition and arguments in ``csrc/softmax.h``."""

import math

from pydl import shapes
from pydl.array.library import Array, operands


def softmax(input: Array, dim: int) -> Array:
    """exp(x) over its sum along the axis ``dim``, of an array of any shape; NumPy's arrays only, as
    there is no kernel in CUDA C++.

    Raises:
        IndexError: there is no such axis.
        TypeError, RuntimeError: see the module.
    """
    return _softmax("softmax", input, dim, False)


def log_softmax(input: Array, dim: int) -> Array:
    """The logarithm of :func:`softmax`."""
    return _softmax("log_softmax", input, dim, True)


def _softmax(name: str, input: Array, dim: int, log: bool) -> Array:
    with operands(name, {"input": input}) as (library, x):
        if library.on_gpu:
            raise RuntimeError(f"{name} has no kernel in CUDA C++: it serves NumPy arrays only")
        axis = shapes.axis(name, dim, x)
        shape = x.shape or (1,)
        before, after = shape[:axis], shape[axis + 1 :]
        columns = library.contiguous(x).reshape(math.prod(before), shape[axis], math.prod(after))
        y = library.empty(columns.shape, columns)
        library.call("softmax_forward", columns, y, log)
        return y.reshape(x.shape)
