"""Who serves what.

A backend is a set of functions, those of the contract (pydl/contract), with the same arguments,
results and saved tensors as every other backend's. This module says which backends there are, what
each serves, why one is missing, and asks the dispatch table (dispatch.py) which is fastest where.

``backend=`` of a call beats ``with use_backend(...)`` beats the environment variable
``PYDL_BACKEND`` beats ``auto``. A backend asked for by name that cannot serve raises; ``auto``
ends at PyTorch's own operator or, for a family that PyTorch has none for, at the first of ``cpu``,
``cuda`` and ``reference`` that can serve.
"""

import functools
import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
)
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling

from pydl import dispatch, extension, layout
from pydl.asked import backend as asked
from pydl.asked import checked, leaves_to_auto, use_backend
from pydl.contract import FAMILIES, FAMILY_OF
from pydl.dispatch import FLOATING, KINDS, Row

__all__ = [
    "BACKENDS",
    "FAMILIES",
    "FAMILY_OF",
    "Backend",
    "asked",
    "at_run_time",
    "checked",
    "choose",
    "function",
    "implementation",
    "measured",
    "refusal",
    "report",
    "serving",
    "transformed",
    "use_backend",
]

_EVERYTHING = (*FAMILIES, *(kind for kinds in KINDS.values() for kind in kinds))
# What PyTorch has no operator for, nor is there a kernel in Triton.
NOT_IN_PYTORCH = ("roi", "nms")
_NOT_IN_TRITON = (*NOT_IN_PYTORCH, *KINDS["cross_entropy"])
# Nor in native C++: a dense product is PyTorch's.
_NOT_IN_CPU = ("conv", *KINDS["cross_entropy"])
# What has no kernel in CUDA C++.
_NOT_IN_CUDA = (
    "softmax",
    *KINDS["softmax"],
    "cross_entropy",
    *KINDS["cross_entropy"],
    "dropout",
)


@dataclass
class Backend:
    """One column of the grid."""

    name: str
    package: str  # holds one module per family, with its functions
    families: tuple[str, ...]
    devices: tuple[str, ...]  # device types; empty: any
    missing: str | None  # why it cannot be used in this process
    about: str
    proof: str  # what its tests have run it on
    native_devices: tuple[
        str, ...
    ] = ()  # where it is meant to run, whatever stands in for that in this process

    def __post_init__(self) -> None:
        self.native_devices = self.native_devices or self.devices


def _native(part: str) -> str | None:
    """Why the native library ``part`` of the extension is not there, or None."""
    reason = extension.missing(part)
    if reason is None and part == "cuda":
        return _old_driver(importlib.import_module("pydl._C").cuda_version)
    return reason


def _old_driver(compiled: str) -> str | None:
    """Why the NVIDIA driver of this machine cannot run what the CUDA of this version compiled, or
    None. A driver serves every minor version of its major one."""
    version = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)()  # 12040 is 12.4; 0 is none
    major, minor = version // 1000, version % 1000 // 10
    if version == 0 or major >= int(compiled.partition(".")[0]):
        return None
    return (
        f"its kernels were compiled by CUDA {compiled}, and this machine's driver serves CUDA up "
        f"to {major}.{minor}; update the driver, or build with a CUDA {major} compiler"
    )


def _triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; `pip install triton`"
    return None


_interpreting = os.environ.get("TRITON_INTERPRET", "0") == "1"

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        Backend(
            "reference",
            "pydl.reference",
            _EVERYTHING,
            (),
            None,
            "the definition, in tensor arithmetic",
            "CPU",
        ),
        Backend(
            "aten",
            "pydl.aten",
            tuple(family for family in _EVERYTHING if family not in NOT_IN_PYTORCH),
            (),
            None,
            "PyTorch's own operator",
            "CPU",
        ),
        Backend(
            "cpu",
            "pydl.native",
            tuple(family for family in _EVERYTHING if family not in _NOT_IN_CPU),
            ("cpu",),
            _native("cpu"),
            "native C++",
            "CPU",
        ),
        Backend(
            "triton",
            "pydl.kernels",
            tuple(family for family in _EVERYTHING if family not in _NOT_IN_TRITON),
            ("cpu",) if _interpreting else ("cuda",),
            _triton(),
            "Triton, in its interpreter" if _interpreting else "Triton",
            "Triton's interpreter; compiled for sm_80, sm_90 and sm_100; has never run on a GPU",
            ("cuda",),
        ),
        Backend(
            "cuda",
            "pydl.native",
            tuple(family for family in _EVERYTHING if family not in _NOT_IN_CUDA),
            ("cuda",),
            _native("cuda"),
            "CUDA C++",
            "the emulator; compiled for sm_80 and sm_90a; has never run on a GPU",
        ),
    )
}


def refusal(backend: str, family: str, tensor: torch.Tensor) -> str | None:
    """Why ``backend`` does not serve ``family`` for a tensor of this device and dtype, or None
    where it does."""
    row = BACKENDS[backend]
    if row.missing is not None:
        return f"backend {backend!r} is not available: {row.missing}"
    if family not in row.families:
        return f"backend {backend!r} does not serve {family}; {', '.join(serving(family))} do"
    if row.devices and tensor.device.type not in row.devices:
        devices = " or ".join(row.devices)
        return f"backend {backend!r} serves tensors on {devices}, got one on {tensor.device}"
    if tensor.layout != torch.strided:
        return f"backend {backend!r} serves dense (strided) tensors, got layout {tensor.layout}"
    if backend != "aten" and type(tensor) not in _PLAIN:
        return f"backend {backend!r} serves torch.Tensor, got its subclass {_name(type(tensor))}"
    if backend != "aten" and tensor.dtype not in FLOATING:
        return (
            f"backend {backend!r} serves float32, float64, float16 and bfloat16, got {tensor.dtype}"
        )
    return None


def serving(family: str) -> list[str]:
    """The backends that have this family at all."""
    return [name for name, row in BACKENDS.items() if family in row.families]


_IN_PYTORCH = frozenset(BACKENDS["aten"].families)
# What our kernels take: a subclass may have no memory of its own, or a meaning of its own. The last
# two are what PyTorch passes in place of tensors while it makes a graph.
_PLAIN = {torch.Tensor, torch.nn.Parameter, FakeTensor, FunctionalTensor}


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _forward_mode() -> bool:
    return forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether torch.func or forward-mode differentiation watches what is computed."""
    return torch._C._are_functorch_transforms_active() or _forward_mode()


def differentiated() -> bool:
    """Whether one of the transforms of torch.func that are active is other than ``vmap``, or
    forward-mode differentiation is on."""
    levels = get_interpreter_stack() or ()
    return _forward_mode() or any(level.key() != TransformType.Vmap for level in levels)


# Whose kernels gain more than it costs to go through vmap, and from how many elements on, of all
# samples: measured on a CPU (docs/transforms.md).
_UNDER_VMAP = frozenset(("pool", "pool3d", "pool_lp", "lrn", "spatial_norm"))
_WORTH_VMAP = 1 << 20


def _left_to_pytorch(family: str, tensor: torch.Tensor) -> bool:
    """Whether a transform that is active leaves the calls of this family to PyTorch's own operator,
    which has fewer layers of Python above it."""
    levels = get_interpreter_stack() or ()
    kinds = {level.key() for level in levels}
    return (
        _forward_mode()
        or TransformType.Vmap not in kinds
        or not kinds <= {TransformType.Vmap, TransformType.Grad}
        or family not in _UNDER_VMAP
        or layout.elements(tensor) < _WORTH_VMAP
    )


# torch.compile calls these while it makes a graph, and guards the transforms itself. This is what
# torch.compiler.assume_constant_result sets, which imports the whole compiler to do it.
for _function in (_forward_mode, transformed):
    vars(_function)["_dynamo_marked_constant"] = True


def _traced(compiling: bool) -> bool:
    """Whether the call becomes a graph that must run without this package."""
    return torch._C._get_tracing_state() is not None or (
        compiling and torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()
    )


def measured(
    family: str,
    tensor: torch.Tensor,
    function: str | None = None,
    unit_stride: bool | None = None,
    training: bool | None = None,
) -> Row | None:
    """The first row of the table that fits this call; arguments as :func:`choose`.

    Args:
        training: whether a gradient is wanted; None: as the input and PyTorch's mode say.
    """
    if training is None:
        training = dispatch.wants_grad(family, tensor)
    of_family = dispatch.AUTO.get((tensor.device.type, family))
    if of_family is None:
        return None
    for row in dispatch.fitting(of_family, tensor, training, function, unit_stride):
        if not refusal(row.backend, family, tensor):
            return row
    return None


def _by_auto(
    family: str,
    tensor: torch.Tensor,
    function: str | None,
    unit_stride: bool | None,
    arguments: tuple = (),
    training: bool | None = None,
) -> str:
    """What was measured, if this package's kernels may serve at all; else PyTorch's own."""
    compiling = is_compiling()
    if tensor.is_cuda:
        dispatch.use_gpu(tensor.device)
    # The size before the rest: what is too small for any row is through in half a microsecond.
    least = dispatch.LEAST.get((family, tensor.dtype), math.inf)
    large = compiling or layout.elements(tensor) >= least
    exactly = dispatch.exactly and (compiling or dispatch.may_be_known(family, tensor))
    if large or exactly:
        ours = type(tensor) in _PLAIN and not _traced(compiling)
        if ours and transformed():
            ours, exactly = not compiling and not _left_to_pytorch(family, tensor), False
        if ours and compiling:
            from torch.fx.experimental.symbolic_shapes import has_static_value  # takes 0.4 s

            if not has_static_value(tensor.numel()):
                if (tensor.device.type, family) in dispatch.AUTO:
                    return _question(family, tensor, unit_stride)
                ours = False
        if ours and exactly:
            answer = dispatch.exact(family, tensor, function, unit_stride, arguments)
            if answer is not None and refusal(answer, family, tensor) is None:
                return answer
        by_table = ours and large
        row = measured(family, tensor, function, unit_stride, training) if by_table else None
        if row is not None:
            return row.backend
    if family in _IN_PYTORCH:
        return "aten"
    # In this order; the last serves any device, so only its refusal is final.
    own = ("cpu", "cuda", "reference")
    return next((one for one in own if refusal(one, family, tensor) is None), own[-1])


def at_run_time(question: str, function: str, arguments: Sequence[object]) -> str:
    """The backend for a call of an operator of a graph whose sizes were not known when it was made.

    Args:
        question: what :func:`choose` answered then.
        function: the contract function.
        arguments: its arguments; the first tensor decides.
    """
    _, family, unit, training = question.split(":")
    tensor = next(one for one in arguments if isinstance(one, torch.Tensor))
    return _by_auto(family, tensor, function, bool(unit) or None, (), bool(training))


def _question(family: str, tensor: torch.Tensor, unit_stride: bool | None) -> str:
    """What :func:`at_run_time` is asked later; only the table can answer then."""
    unit = "unit" if unit_stride else ""
    return f"auto:{family}:{unit}:{'training' if dispatch.wants_grad(family, tensor) else ''}"


def choose(
    family: str,
    backend: str | None,
    tensor: torch.Tensor,
    function: str | None = None,
    unit_stride: bool | None = None,
    arguments: tuple = (),
) -> str:
    """The backend that serves this call.

    Under ``auto``, tensors of a subclass, sparse and quantised ones, and whatever torch.func,
    forward-mode differentiation, ``torch.jit.trace`` or an ONNX export watches are PyTorch's own
    operator's. In a graph with sizes that are not known while it is made the answer is
    ``auto:...``, which the operator passes to :func:`at_run_time`.

    Args:
        family: ``conv``, ``pool``, ``lrn``..., or one of the kinds of ``dispatch.KINDS``.
        backend: the caller's ``backend=`` argument; None leaves it to ``use_backend`` and
            ``PYDL_BACKEND``.
        tensor: the operator's input.
        function: which of the family's, where they are chosen apart.
        unit_stride: whether the window moves by one along every axis, where that matters.
        arguments: whatever else decides how long the call takes: windows, shapes of weights.

    Raises:
        ValueError: there is no backend of that name.
        RuntimeError: the backend asked for cannot serve this tensor, or none can, and why.
    """
    name = asked(backend)
    if name != "auto":
        reason = refusal(name, family, tensor)
        if reason is None and name != "aten" and _traced(is_compiling()):
            reason = (
                f"backend {name!r} cannot become part of a graph that runs without pydl, as "
                "torch.jit.trace and torch.onnx.export make them; trace with backend='auto', which "
                "is PyTorch's own operator there"
            )
        if reason is not None and not leaves_to_auto(backend, family, reason):
            raise RuntimeError(reason)
        if reason is None:
            return name
    name = _by_auto(family, tensor, function, unit_stride, arguments)
    if name == "reference":
        reason = refusal(name, family, tensor)
        if reason is not None:
            raise RuntimeError(reason)
    return name


@functools.cache
def implementation(backend: str, name: str) -> Callable:
    """The function ``name`` of a backend, as in ``implementation("cpu", "lrn_forward")``: takes a
    call of the contract."""
    package = BACKENDS[backend].package
    served = getattr(importlib.import_module(f"{package}.{FAMILY_OF[name]}"), name)
    if package != "pydl.native":
        return served
    from pydl.native import library

    return functools.partial(served, library(backend))


def function(backend: str, name: str) -> Callable:
    """The same, taking the call's arguments one by one."""
    served, call = implementation(backend, name), FAMILIES[FAMILY_OF[name]][name]
    return lambda *arguments: served(call(*arguments))


def report() -> list[tuple[str, bool, str]]:
    """One row per backend: its name, whether it can be used in this process, and what it is or why
    it is missing."""
    return [
        (
            name,
            row.missing is None,
            row.missing or f"{row.about}; on {', '.join(row.devices) or 'any device'}",
        )
        for name, row in BACKENDS.items()
    ]
