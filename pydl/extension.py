"""The extension and its two libraries, ``cpu`` and ``cuda``; imports nothing of PyTorch's."""

import ctypes
import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

_served: dict[str, ModuleType] = {}


def serve(part: str, functions: ModuleType) -> None:
    """Has these functions stand for a library of the extension: the emulated CUDA kernels."""
    _served[part] = functions


def library(part: str) -> ModuleType:
    """The functions of ``cpu`` or ``cuda``.

    Raises:
        RuntimeError: they are not there, and why.
    """
    reason = missing(part)
    if reason is not None:
        raise RuntimeError(reason)
    return _served.get(part) or getattr(_extension(), part)


def missing(part: str) -> str | None:
    """Why the library ``part`` of the extension is not there, or None."""
    if part in _served:
        return None
    try:
        extension = _extension()
    except ImportError as error:
        return (
            f"the extension pydl._C could not be imported ({error}); "
            "build it with `pip install -e .`"
        )
    if not hasattr(extension, part):
        return (
            "this build has no CUDA kernels; `pip install` from the sources makes them where there "
            "is a CUDA compiler (nvcc on PATH, CUDA_HOME, or the nvidia-cuda-nvcc wheel)"
        )
    if part == "cpu" and not extension.cpu.isa():
        return (
            f"built for processors with {' or '.join(extension.cpu.built_isas())}, which this one "
            "is not; build it here with `pip install -e .`"
        )
    return None


@functools.cache
def _extension() -> ModuleType:
    """pydl._C, and before it the OpenMP run time that it names: PyTorch's own, where that is
    installed, so that there is one in the process, which PyTorch finds if it is imported later."""
    if "torch" not in sys.modules:
        torch = importlib.util.find_spec("torch")  # imports nothing
        for folder in (torch and torch.submodule_search_locations) or ():
            openmp = Path(folder, "lib", "libgomp.so.1")
            if openmp.exists():
                ctypes.CDLL(str(openmp))
    return importlib.import_module("pydl._C")
