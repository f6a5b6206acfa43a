"""How a backend is held to the reference: which backends serve where, how operands lie in memory,
which error is allowed."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch

from pydl import backends, native

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Case:
    """A row of a family's table.

    ``view`` says how the operands lie: contiguous, channels_last, sliced (a view into a larger
    map), offset (odd storage offset), or expanded (the incoming gradient has stride 0).
    """

    reason: str
    shape: tuple[int, ...]
    arguments: dict = field(default_factory=dict)
    view: str = "contiguous"
    values: str = "normal"
    weight: tuple[int, ...] | None = None  # a convolution's

    def __str__(self) -> str:
        return self.reason.replace(" ", "-")


def servers(family: str) -> list:
    """Every (backend, device) that serves a family in this process, as pytest parameters.

    A backend that cannot be used here is a skip with its reason, never an absence.
    """
    out = []
    for name in backends.serving(family):
        row = backends.BACKENDS[name]
        devices = row.devices or (
            ("cpu", "cuda") if torch.cuda.is_available() and name != "reference" else ("cpu",)
        )
        for device in devices:
            missing = row.missing or (
                "no GPU" if device == "cuda" and not torch.cuda.is_available() else None
            )
            marks = [pytest.mark.skip(reason=missing)] if missing else []
            marks += [pytest.mark.native] if row.package == "pydl.native" else []
            out.append(pytest.param((name, device), id=f"{name}-{device}", marks=marks))
    return out


def operand(
    case: Case, dtype: torch.dtype, device: str, shape: Sequence[int] | None = None, seed: int = 0
) -> torch.Tensor:
    """An operand with the case's values, lying in memory as the case says; values are representable
    in bfloat16."""
    shape = tuple(case.shape if shape is None else shape)
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    make: dict[str, Callable[[], torch.Tensor]] = {
        "normal": lambda: normal,
        "ties": lambda: (normal * 1.5).round(),
        "negative": lambda: -normal.abs() - 1,
        "nan": lambda: torch.where(normal > 1.2, torch.nan, normal),
        "minus infinity": lambda: torch.full(shape, -torch.inf, dtype=torch.float64),
        "large": lambda: normal * 100,
    }
    values = make[case.values]().to(torch.bfloat16).to(dtype)
    return laid_out(values.to(device), case.view)


def laid_out(values: torch.Tensor, view: str) -> torch.Tensor:
    """The same values lying in memory as ``view`` says."""
    if view == "channels_last" and values.ndim >= 4:
        return values.contiguous(
            memory_format={4: torch.channels_last, 5: torch.channels_last_3d}[values.ndim]
        )
    if view == "sliced":
        larger = values.new_full([n + 2 for n in values.shape], torch.nan)
        inner = larger[tuple(slice(1, 1 + n) for n in values.shape)]
        return inner.copy_(values)
    if view == "offset":
        return (
            values.new_full((values.numel() + 3,), torch.nan)[3:].view(values.shape).copy_(values)
        )
    return values.contiguous()


def gradient(case: Case, y: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """A gradient for the result ``y``; lies as the case says, or is expanded."""
    generator = torch.Generator().manual_seed(seed)
    if case.view == "expanded":
        return torch.full((), 0.5, dtype=y.dtype, device=y.device).expand(y.shape)
    values = (
        torch.randn(y.shape, generator=generator, dtype=torch.float64)
        .to(torch.bfloat16)
        .to(y.dtype)
    )
    return laid_out(values.to(y.device), case.view)


def run(
    function: Callable,
    operands: Sequence[torch.Tensor],
    grad_of: Callable[[torch.Tensor], torch.Tensor],
) -> list[torch.Tensor]:
    """The result of ``function(*operands)`` and the gradients of its operands."""
    leaves = [operand.detach().requires_grad_() for operand in operands]
    y = function(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad_of(y))]


def run_pytorch(
    function: Callable, operands: Sequence[torch.Tensor], grad_of: Callable
) -> list[torch.Tensor | None]:
    """``run`` with PyTorch's own operator; Nones where PyTorch has no kernel for the dtype (LRN of
    halves on a CPU)."""
    try:
        return run(function, operands, grad_of)
    except NotImplementedError:
        return [None] * (1 + len(operands))


def hold(
    ours: torch.Tensor,
    theirs: torch.Tensor | None,
    exact: torch.Tensor,
    what: str,
    terms: float = 0.0,
) -> None:
    """The yardstick: against float64, at most twice PyTorch's error in the same dtype, plus two
    units in the last place, of the result or of ``terms``, the size of what cancels in it.

    Where PyTorch has nothing to compare with (``theirs`` is None) its error counts as zero.
    """
    assert ours.shape == exact.shape, (
        f"{what}: shape {tuple(ours.shape)}, expected {tuple(exact.shape)}"
    )
    assert theirs is None or ours.dtype == theirs.dtype, (
        f"{what}: {ours.dtype}, PyTorch gives {theirs.dtype}"
    )
    low, ours, exact = ours.dtype, ours.double().cpu(), exact.double().cpu()
    theirs = exact if theirs is None else theirs.double().cpu()
    assert torch.equal(ours.isnan(), exact.isnan()), f"{what}: NaN elsewhere than in the reference"
    finite = exact.isfinite()
    assert torch.equal(ours[~finite].nan_to_num(), exact[~finite].nan_to_num()), (
        f"{what}: infinities differ"
    )
    if not finite.any():
        return
    ours, theirs, exact = ours[finite], theirs[finite], exact[finite]
    # In float64 the yardstick has rounding errors of its own.
    units = 200 if low == torch.float64 else 2
    largest = max(exact.abs().max().item(), terms)
    tiny = units * torch.finfo(low).eps * largest + torch.finfo(low).tiny
    error, allowed = (
        (ours - exact).abs().max().item(),
        2 * (theirs - exact).abs().nan_to_num().max().item() + tiny,
    )
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


def nearest_tf32(x: torch.Tensor) -> torch.Tensor:
    """float32 as what the tensor cores are to multiply of it: the nearest TF32."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def opcheck(operator: torch._ops.OpOverload, arguments: Sequence) -> None:
    """PyTorch's own check of a registration. What it finds out by tracing is the same for every
    backend, so that part, the slowest, is left to the reference."""
    tests = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if "reference" in arguments:
        tests.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(operator, tuple(arguments), test_utils=tests)


INSTRUCTION_SETS = ("baseline", "avx2", "avx512")


@contextlib.contextmanager
def instruction_set(name: str) -> Iterator[None]:
    """The CPU kernels of this instruction set inside the block; a skip where there are none."""
    functions = native.library("cpu").functions
    before = functions.isa()
    assert name in functions.built_isas(), "`make test` builds every instruction set"
    try:
        functions.use_isa(name)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        functions.use_isa(before)
