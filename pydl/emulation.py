"""The CUDA kernels on a CPU."""

from types import ModuleType

from pydl import backends, native, plan


def emulate_cuda(emulated: ModuleType) -> None:
    """Let the CUDA kernels as built against ``csrc/emulator`` serve the backend ``cuda``, for
    tensors on the CPU.

    For tests and for reading along in a debugger; it is thousands of times slower than a GPU. For
    the rest of the process.

    Args:
        emulated: the module ``pydl._emulated``, built with ``-DPYDL_EMULATOR=ON``.
    """
    native.serve("cuda", emulated.cuda)
    row = backends.BACKENDS["cuda"]
    row.devices, row.missing, row.about = ("cpu",), None, "CUDA C++, emulated"
    backends.implementation.cache_clear()
    plan.forget()
