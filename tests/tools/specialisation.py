"""A launch of a Triton kernel as what Triton compiles for it, without a GPU."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import CompiledKernel, make_backend
from triton.runtime.jit import create_function_from_signature


def _target(architecture: int) -> GPUTarget:
    return GPUTarget("cuda", architecture, 32)


_BACKEND = make_backend(_target(90))


@dataclass(frozen=True)
class Specialisation:
    """A kernel with types by name, constants and attributes by position, options by name."""

    kernel: Any
    signature: dict[str, Any]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any]

    @property
    def key(self) -> str:
        """The same for launches that one compilation serves."""
        parts = self.signature, self.constants, self.attributes, self.options
        return f"{self.kernel.__name__} {parts}"

    def constant(self, name: str) -> Any:
        """A constant argument; None where it is none, or the kernel has no such argument."""
        names = self.kernel.arg_names
        return self.constants.get((names.index(name),)) if name in names else None

    def _source(self) -> ASTSource:
        return ASTSource(self.kernel, self.signature, self.constants, self.attributes)

    def ir(self) -> Any:
        """Triton's IR, as the front end makes it for sm_90."""
        options = _BACKEND.parse_options(self.options)
        context = ir.context()
        ir.load_dialects(context)
        _BACKEND.load_dialects(context)
        return self._source().make_ir(
            _target(90),
            options,
            _BACKEND.get_codegen_implementation(options),
            _BACKEND.get_module_map(),
            context,
        )

    def compiled(self, architecture: int) -> CompiledKernel:
        """Machine code for sm_<architecture>."""
        return triton.compile(self._source(), target=_target(architecture), options=self.options)


@functools.cache
def _binder(kernel: Any) -> Callable:
    return create_function_from_signature(kernel.signature, kernel.params, _BACKEND)


def specialisation(kernel: Any, arguments: tuple, named: dict[str, Any]) -> Specialisation:
    """What Triton's own launcher would compile for these arguments; tensors may be on the meta
    device."""
    bound, kinds, options = _binder(kernel)(*arguments, **named, enable_fp_fusion=True)
    _, signature, constants, attributes = kernel._pack_args(_BACKEND, named, bound, kinds, options)
    return Specialisation(kernel, signature, constants, attributes, options)
