"""The native backends, ``cpu`` and ``cuda``: what stands between a contract function and the
extension.

Both have the same functions, so each family's are written once here and take the library that
serves them. The extension gets tensors and reads their pointers, sizes and strides itself; here
results are allocated, and for the CPU kernels, which want dense memory in one layout, operands that
are neither contiguous nor channels last are copied.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from pydl import dispatch, extension, layout, plan


class Library:
    """One of the extension's libraries and how its functions are called."""

    def __init__(self, name: str, functions: ModuleType, *, on_gpu: bool) -> None:
        self.name = name
        self.functions = functions
        self.on_gpu = on_gpu

    def operand(self, x: torch.Tensor, like: torch.memory_format) -> torch.Tensor:
        """``x`` as the kernels read it: dense in the layout ``like`` for the CPU's, any strides for
        CUDA's."""
        return layout.dense(x, like) if self.name == "cpu" else x

    def contiguous(self, x: torch.Tensor) -> torch.Tensor:
        """``x``, a weight perhaps, contiguous for the CPU's kernels, any strides for CUDA's."""
        return x.contiguous() if self.name == "cpu" else x

    def call(self, function: str, *arguments: object, on: torch.Tensor) -> None:
        """Calls an extension function under the device of ``on``, with its stream or the number of
        threads."""
        run: Callable = getattr(self.functions, function)
        keep = getattr(self.functions, f"keep_{function}", None)
        where, start = torch.get_num_threads(), None
        if self.on_gpu:
            where, start = 0, _OnStream(on.device.index)
        plan.launch(run, keep, arguments, where, start)


class _OnStream:
    """Starts a function on the current stream of a GPU, which is made the current one if it is
    not."""

    def __init__(self, device: int) -> None:
        self.device = device

    def __call__(self, run: Callable, *arguments: object) -> None:
        if torch._C._cuda_getDevice() != self.device:
            with torch.cuda.device(self.device):
                return self(run, *arguments)
        run(*arguments, torch._C._cuda_getCurrentRawStream(self.device))

    def bound(self, launch: Any) -> Callable:
        """A launch of the extension's that does the same by itself, without a frame of Python's."""
        asked = torch._C._cuda_getDevice, torch._C._cuda_getCurrentRawStream
        return launch.on_stream(self.device, *asked, self._elsewhere)

    def _elsewhere(self, launch: Callable, *tensors: torch.Tensor) -> None:
        with torch.cuda.device(self.device):
            launch(*tensors)


_libraries: dict[str, Library] = {}


def library(name: str) -> Library:
    """The library behind the backend ``cpu`` or ``cuda``."""
    if name not in _libraries:
        _libraries[name] = Library(name, extension.library(name), on_gpu=name == "cuda")
    return _libraries[name]


def use_isa(name: str) -> None:
    """Lets the CPU kernels of this instruction set serve from now on, and ``auto`` go by its table;
    for tests and comparisons.

    Raises:
        ValueError: this build or this processor does not have it.
    """
    library("cpu").functions.use_isa(name)
    dispatch.reload()


def serve(name: str, functions: ModuleType) -> None:
    """Has these functions, which take tensors on the CPU, behind the backend ``name``."""
    extension.serve(name, functions)
    _libraries[name] = Library(name, functions, on_gpu=False)
    plan.forget()
