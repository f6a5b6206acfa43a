"""Triton's interpreter without what it computes over and over about the types of what a kernel
computes with: the same numbers in about half of the time.

Types are immutable. So those that are equal become one object, and what depends on types alone is
asked once.
"""

import dataclasses
import functools
from collections.abc import Callable

import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter


def spare() -> None:
    """Changes the interpreter of this process."""
    _leave_out_assertions()
    interpreter._patch_lang = _patch_once(interpreter._patch_lang)
    interpreter._get_np_dtype = _ask_once(interpreter._get_np_dtype)
    TritonSemantic.computation_type_impl = functools.cache(TritonSemantic.computation_type_impl)
    TritonSemantic.broadcast_impl_value = _broadcast_as_before(TritonSemantic.broadcast_impl_value)
    _make_equal_blocks_one(tl.block_type)
    _make_tensors_as_before(tl.tensor)
    _compare_what_differs(tl.dtype)
    tl.core._unwrap_if_constexpr = _unwrap_what_is_wrapped(tl.core._unwrap_if_constexpr)


def _leave_out_assertions() -> None:
    """Beside each sum of 32-bit integers the same in 64 bits, for an assertion that the interpreter
    then leaves out, since only ``debug=True`` would have it made."""
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)


class _Kept:
    """What a launch would undo after it."""

    def restore(self) -> None:
        pass


def _patch_once(patch: Callable) -> Callable:
    """Interpreting replaces the functions of the language, at each launch and each call of a
    function that is jitted, by the same ones. Nothing here compiles in this process, so they
    stay."""
    patched = set()

    def once(function: Callable) -> _Kept:
        modules = function.__globals__.values()
        languages = tuple(any(m is language for m in modules) for language in (tl, tl.core))
        if languages not in patched:
            patched.add(languages)
            patch(function)
        return _Kept()

    return once


def _ask_once(of_pointers: Callable) -> Callable:
    of_numbers = functools.cache(of_pointers)
    return lambda type: of_pointers(type) if type.scalar.is_ptr() else of_numbers(type.scalar)


def _make_equal_blocks_one(block_type: type) -> None:
    known: dict[tuple, tl.block_type] = {}
    initialise = block_type.__init__

    def new(cls: type, element: tl.dtype, shape: list) -> tl.block_type:
        key = element.name, getattr(element, "address_space", None), *shape
        if key not in known:
            block = object.__new__(cls)
            initialise(block, element, shape)
            known[key] = block
        return known[key]

    block_type.__new__ = new
    block_type.__init__ = lambda *_: None


def _make_tensors_as_before(tensor: type) -> None:
    """A tensor has the attributes of the first one of its type, but its own values."""
    initialise = tensor.__init__

    def like_the_first(self: tl.tensor, handle: object, type: tl.dtype) -> None:
        first = vars(type).get("_first")
        if first is None:
            initialise(self, handle, type)
            type._first = {name: value for name, value in vars(self).items() if name != "handle"}
        else:
            vars(self).update(first)
            self.handle = handle

    tensor.__init__ = like_the_first


def _broadcast_as_before(broadcast: Callable) -> Callable:
    """Two operands become of the types that the first two of theirs became of."""
    known: dict[tuple[str, str], tuple[tl.dtype, tl.dtype]] = {}

    def become(semantic: TritonSemantic, x: tl.tensor, type: tl.dtype) -> tl.tensor:
        if x.type.name == type.name:
            return x
        if x.type.is_block():
            handle = semantic.builder.create_broadcast(x.handle, type.shape)
        else:
            handle = semantic.builder.create_splat(type, x.handle)
        return semantic.make_tensor(handle, type)

    def as_before(semantic: TritonSemantic, x: tl.tensor, y: tl.tensor) -> tuple:
        if x.type is y.type:
            return x, y
        names = x.type.name, y.type.name
        if names in known:
            return tuple(map(functools.partial(become, semantic), (x, y), known[names]))
        results = broadcast(semantic, x, y)
        if len(x.shape) == len(y.shape) or not (len(x.shape) and len(y.shape)):
            known[names] = tuple(result.type for result in results)
        return results

    return as_before


def _compare_what_differs(dtype: type) -> None:
    equal = dtype.__eq__
    dtype.__eq__ = lambda self, other: self is other or equal(self, other)


def _unwrap_what_is_wrapped(unwrap: Callable) -> Callable:
    plain = {tl.tensor, int, float, bool, str, type(None)}
    return lambda value: value if type(value) in plain else unwrap(value)
