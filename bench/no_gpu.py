"""A GPU that is none: whatever comes before a launch runs as it would, and the launch does nothing.

For measuring and testing the way to a GPU on a machine without one. Tensors lie on the CPU. The
kernels in Triton are compiled, for sm_90, and never loaded; those in CUDA C++ are the emulated ones
(csrc/emulator).
"""

import importlib
from types import SimpleNamespace

import torch

from pydl import backends, native, plan
from pydl.native import unpool


class Launches:
    """What was launched: the arguments of each launch, the stream among them."""

    def __init__(self) -> None:
        self.count = 0
        self.last: tuple = ()

    def __call__(self, *arguments: object) -> None:
        self.count += 1
        self.last = arguments


def serve_triton() -> Launches:
    """Has Triton compile and launch nothing, for the rest of the process, in which it must not be
    interpreted."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    launches = Launches()
    sizes = {"max_shared_mem": 227 * 1024, "multiprocessor_count": 132}
    utils = SimpleNamespace(
        # The module, the function, registers, spills, the most threads.
        load_binary=lambda name, kernel, shared, device: (1, 1, 32, 0, 1024),
        unload_module=lambda module: None,
        get_device_properties=lambda device: sizes,
    )
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 7,
            launcher_cls=lambda source, metadata: launches,
            utils=utils,
        )
    )
    _on_the_cpu("triton")
    return launches


def serve_cuda() -> None:
    """The same for the backend ``cuda``: the code that launches runs as it is, built against the
    emulator, which is told to do nothing.

    Raises:
        ImportError: the emulated kernels are not built.
    """
    emulated = importlib.import_module("pydl._emulated")
    emulated.emulator.set_idle(True)
    native._libraries["cuda"] = native.Library("cuda", emulated.cuda, on_gpu=True)
    torch._C._cuda_getDevice = lambda: None
    torch._C._cuda_getCurrentRawStream = lambda device: 7
    unpool.check_positions = lambda *_: None  # nobody looks at those on a GPU
    _on_the_cpu("cuda")


def _on_the_cpu(name: str) -> None:
    row = backends.BACKENDS[name]
    row.devices, row.missing = ("cpu",), None
    backends.implementation.cache_clear()
    plan.forget()
