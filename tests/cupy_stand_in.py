"""Stands in for CuPy where there is no GPU: as much of its interface as pydl.array uses, over
memory that the emulated kernels read.

As with CuPy's, NumPy cannot read an array by accident, and what is not CuPy's own is refused.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np


class Device(contextlib.nullcontext):
    """The one there is, and none to change to."""

    def __str__(self) -> str:
        return "<CUDA Device 0>"


class ndarray:
    """An array on the one device there is."""

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self._memory.shape,
            "typestr": self._memory.dtype.str,
            "data": (self._memory.__array_interface__["data"][0], False),
            "strides": self._memory.strides,
            "version": 3,
            "stream": cuda.get_current_stream().ptr,
        }

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    @property
    def device(self) -> "Device":
        return Device()

    @property
    def T(self) -> "ndarray":
        return ndarray(self._memory.T)

    shape = property(lambda self: self._memory.shape)
    ndim = property(lambda self: self._memory.ndim)
    dtype = property(lambda self: self._memory.dtype)
    strides = property(lambda self: self._memory.strides)
    itemsize = property(lambda self: self._memory.itemsize)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._memory.flags.c_contiguous))

    def get(self) -> np.ndarray:
        return self._memory.copy()

    def copy(self) -> "ndarray":
        return ndarray(self._memory.copy())

    def astype(self, dtype: Any, copy: bool = True) -> "ndarray":
        same = not copy and self.dtype == dtype
        return self if same else ndarray(self._memory.astype(dtype))

    def reshape(self, *shape: Any) -> "ndarray":
        return ndarray(self._memory.reshape(*shape))

    def transpose(self, *order: int) -> "ndarray":
        return ndarray(self._memory.transpose(*order))

    def __len__(self) -> int:
        return len(self._memory)

    def __getitem__(self, place: Any) -> "ndarray":
        return ndarray(self._memory[place])

    def __setitem__(self, place: Any, value: Any) -> None:
        self._memory[place] = value if isinstance(value, int | float) else own(value)

    def __abs__(self) -> "ndarray":
        return ndarray(abs(self._memory))

    def __rmul__(self, factor: float) -> "ndarray":
        return ndarray(factor * self._memory)

    def __matmul__(self, other: "ndarray") -> "ndarray":
        return ndarray(self._memory @ own(other))

    def __iadd__(self, other: "ndarray") -> "ndarray":
        self._memory += own(other)
        return self


def own(array: ndarray) -> np.ndarray:
    """The memory of an array of CuPy's.

    Raises:
        TypeError: it is another's.
    """
    if not isinstance(array, ndarray):
        raise TypeError(f"Unsupported type {type(array)}")
    return array._memory


def empty(shape: Any, dtype: Any) -> ndarray:
    return ndarray(np.empty(shape, dtype))


def zeros(shape: Any, dtype: Any) -> ndarray:
    return ndarray(np.zeros(shape, dtype))


def moveaxis(array: ndarray, source: int, destination: int) -> ndarray:
    return ndarray(np.moveaxis(own(array), source, destination))


def pad(array: ndarray, widths: Any) -> ndarray:
    return ndarray(np.pad(own(array), widths))


def asarray(array: Any) -> ndarray:
    """The same memory: CuPy reads the interface, and so it takes other packages' arrays."""
    if isinstance(array, ndarray):
        return array
    interface = dict(array.__cuda_array_interface__)
    holder = SimpleNamespace(__array_interface__=interface, owner=array)
    return ndarray(np.asarray(holder))


cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=0))
