"""Who serves an array, and what the extension reads of one.

NumPy's arrays are served by the CPU kernels, CuPy's by the CUDA kernels on CuPy's current stream.
What else shares its memory is taken as one of the two: by ``__cuda_array_interface__``, DLPack or
the buffer protocol. Imports neither PyTorch nor, before it meets one of its arrays, CuPy.
"""

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from pydl import extension

# A NumPy or a CuPy array, which have no class in common.
Array = Any

_FLOATING = {np.dtype(name): name for name in ("float32", "float64", "float16")}
_DTYPES = _FLOATING | {np.dtype(name): name for name in ("uint8", "int64")}
_DEVICES = {1: "numpy", 2: "cupy", 3: "numpy", 13: "cupy"}  # DLPack's CPU, CUDA, pinned, managed


class Memory:
    """An array as the extension reads it (csrc/bindings/tensor_caster.h): what it asks of a tensor
    of PyTorch's."""

    def __init__(self, array: Array) -> None:
        on_cpu = isinstance(array, np.ndarray)
        read = array.__array_interface__ if on_cpu else array.__cuda_array_interface__
        self.address = read["data"][0]
        self.dtype, self.shape = _DTYPES[array.dtype], array.shape
        self.strides = tuple(stride // array.itemsize for stride in array.strides)
        self.owner = array

    def data_ptr(self) -> int:
        return self.address

    def stride(self) -> tuple[int, ...]:
        return self.strides


class Library:
    """A library of the extension and the package whose arrays it serves."""

    def __init__(self, part: str, arrays: ModuleType) -> None:
        self.arrays = arrays
        self.functions = extension.library(part)
        self.on_gpu = part == "cuda"

    def empty(self, shape: Sequence[int], like: Array, dtype: Any = None) -> Array:
        """An unwritten array of this shape, of a map (N, C, ...) in the layout of the map ``like``,
        and in its dtype unless told otherwise."""
        dtype = like.dtype if dtype is None else dtype
        if not _channels_last(like):
            return self.arrays.empty(shape, dtype=dtype)
        made = self.arrays.empty((shape[0], *shape[2:], shape[1]), dtype=dtype)
        return self.arrays.moveaxis(made, -1, 1)

    def dense(self, x: Array) -> Array:
        """The map ``x`` itself where the kernels read it as it lies, else a copy: the CPU's want it
        dense, contiguous or channels last, CUDA's take any strides that are not negative."""
        if self.on_gpu:
            as_it_is = all(s >= 0 and s % x.itemsize == 0 for s in x.strides)
        else:
            as_it_is = x.flags.aligned and (x.flags.c_contiguous or _channels_last(x))
        return x if as_it_is else x.copy()

    def like(self, x: Array, map: Array) -> Array:
        """The map ``x`` in the layout of another, which the CPU's kernels want of all of theirs."""
        x = self.dense(x)
        if self.on_gpu or _channels_last(x) == _channels_last(map):
            return x
        made = self.empty(x.shape, map)
        made[...] = x
        return made

    def contiguous(self, x: Array | None) -> Array | None:
        """A weight, contiguous."""
        if x is None or (x.flags.c_contiguous and (self.on_gpu or x.flags.aligned)):
            return x
        return x.copy()

    def call(self, function: str, *arguments: object) -> None:
        """Calls a function of the extension with the number of threads or the stream."""
        given = (Memory(one) if hasattr(one, "dtype") else one for one in arguments)
        if self.on_gpu:
            where = self.arrays.cuda.get_current_stream().ptr
        else:
            where = self.functions.max_threads()
        getattr(self.functions, function)(*given, where)


def sums_dtype(x: Array) -> np.dtype:
    """The dtype in which sums over ``x`` are made: float32, float64 for float64."""
    return np.promote_types(x.dtype, np.float32)


def _channels_last(x: Array) -> bool:
    """Whether neighbours in memory are neighbouring channels."""
    if x.ndim < 3 or x.flags.c_contiguous:
        return False
    return x.transpose(0, *range(2, x.ndim), 1).flags.c_contiguous


@contextlib.contextmanager
def operands(
    name: str,
    needed: dict[str, object],
    optional: dict[str, object] | None = None,
    other_dtypes: Sequence[str] = (),
) -> Iterator[tuple[Any, ...]]:
    """The library of the first operand and all of them as its arrays, checked to be of one dtype
    but for those of ``other_dtypes``; of the optional ones None stays None. For CuPy's arrays on
    their device, which is the current one inside the block.

    Raises:
        TypeError: one of them is no array.
        RuntimeError: they are of two packages, devices or dtypes, or of a dtype that no kernel
            serves; or the extension has no kernels for them.
    """
    arrays = {what: _array(name, what, one) for what, one in needed.items()}
    for what, one in (optional or {}).items():
        arrays[what] = None if one is None else _array(name, what, one)
    (first, x), *rest = ((what, one) for what, one in arrays.items() if one is not None)
    if x.dtype not in _FLOATING:
        raise RuntimeError(f"{name} serves float32, float64 and float16, got {x.dtype}")
    for what, one in rest:
        if _place(one) != _place(x):
            raise RuntimeError(
                f"{name}: expected all arrays to be of one package and on one device, but {first} "
                f"is {_place(x)} and {what} is {_place(one)}"
            )
        if one.dtype != x.dtype and what not in other_dtypes:
            raise RuntimeError(
                f"{name}: {first} type ({x.dtype}) and {what} type ({one.dtype}) should be the same"
            )
    if isinstance(x, np.ndarray):
        yield Library("cpu", np), *arrays.values()
        return
    with x.device:
        yield Library("cuda", importlib.import_module("cupy")), *arrays.values()


def _place(x: Array) -> str:
    return "NumPy's" if isinstance(x, np.ndarray) else f"CuPy's on {x.device}"


def _array(name: str, what: str, given: Any) -> Array:
    """``given`` as an array of NumPy's or CuPy's, in its own memory."""
    masked = isinstance(given, np.ma.MaskedArray)
    if isinstance(given, np.ndarray) and not masked:
        return given
    if hasattr(given, "__cuda_array_interface__"):
        return _cupy(name).asarray(given)
    if hasattr(given, "__dlpack__") and not masked:
        package = _DEVICES.get(given.__dlpack_device__()[0])
        if package is not None:
            return (np if package == "numpy" else _cupy(name)).from_dlpack(given)
    with contextlib.suppress(TypeError, ValueError):
        if not masked:
            return np.asarray(memoryview(given))
    raise TypeError(
        f"{name}(): argument '{what}' must be a NumPy or CuPy array, or share its memory by DLPack "
        f"or the buffer protocol, not {type(given).__name__}"
    )


def _cupy(name: str) -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError(
            f"{name} serves arrays on a GPU by CuPy: pip install 'pydl-kernels[cupy]'"
        ) from error
