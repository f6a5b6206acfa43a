"""Windows and sizes in numbers: what is checked and computed of them without looking at a tensor's
elements, so that tensors and arrays (pydl/array) share it. Errors are worded as PyTorch words them.

Imports nothing of PyTorch's.
"""

from collections.abc import Sequence
from operator import index
from typing import Any, Protocol

Ints = Sequence[int]
Window = tuple[list[int], list[int], list[int], list[int]]

# What passes for an int beside int itself: PyTorch's symbols, once it is there (ops/checks.py).
SYMBOLS: tuple[type, ...] = ()


class HasShape(Protocol):
    """A tensor or an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...


def integer(operator: str, argument: str, value: Any, kind: str = "int") -> int:
    """``value`` as an int: one of Python's, of NumPy's, a SymInt, or anything with ``__index__``.

    Raises:
        TypeError: it is none, or a bool.
    """
    if type(value) is int or isinstance(value, SYMBOLS):
        return value  # type: ignore[return-value]  # a SymInt passes for an int everywhere
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(
            f"{operator}(): argument '{argument}' must be {kind}, not {type(value).__name__}"
        )
    return index(value)


def axes(
    operator: str, argument: str, value: int | Sequence[int], count: int, *, least: int
) -> list[int]:
    """``value`` as one integer per spatial axis.

    Args:
        least: the smallest integer accepted.

    Raises:
        TypeError: not an integer or a sequence of integers.
        RuntimeError: the wrong number of them, or one below ``least``.
    """
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    given = [integer(operator, argument, one, "tuple of ints") for one in many]
    if len(given) not in (1, count):
        raise RuntimeError(
            f"{operator}: {argument} must either be a single int, or a tuple of {count} ints, "
            f"got {len(given)} values"
        )
    out = given * count if len(given) == 1 else given
    for one in out:
        if one < least:
            kind = "non-negative" if least == 0 else "greater than zero"
            raise RuntimeError(f"{operator}: {argument} should be {kind}, but got {given}")
    return out


def rank(operator: str, x: HasShape, spatial: int) -> None:
    """Accepts (N, C, spatial...) and the unbatched (C, spatial...)."""
    if x.ndim not in (spatial + 1, spatial + 2):
        raise RuntimeError(
            f"Expected {spatial + 1}D (unbatched) or {spatial + 2}D (batched) input to {operator}, "
            f"but got input of size: {list(x.shape)}"
        )


def poolable(operator: str, x: HasShape, spatial: int) -> None:
    """Accepts what :func:`rank` does where nothing but the batch is empty."""
    rank(operator, x, spatial)
    if 0 in x.shape[-spatial - 1 :]:
        raise RuntimeError(
            f"Expected {spatial + 1}D or {spatial + 2}D (batch mode) tensor with optional 0 dim "
            f"batch size for input to {operator}, but got: {list(x.shape)}"
        )


def bins_there(operator: str, x: HasShape, first: int) -> None:
    """The axes of an input of adaptive pooling: from ``first`` on none may be empty."""
    for axis in range(first % x.ndim, x.ndim):
        if x.shape[axis] == 0:
            raise RuntimeError(
                f"{operator}(): Expected input to have non-zero size for non-batch dimensions, "
                f"but input has sizes {list(x.shape)} with dimension {axis} being empty"
            )


def bins(name: str, x: HasShape, axes_count: int, output_size: Any) -> list[int]:
    """One number of bins per axis of adaptive pooling, checked; None is the input's size."""
    one = isinstance(output_size, (int, str, *SYMBOLS)) or getattr(output_size, "ndim", 1) == 0
    one = one or not hasattr(output_size, "__len__")
    given = [output_size] * axes_count if one else list(output_size)
    if len(given) != axes_count:
        raise RuntimeError(f"{name}: output_size must be {axes_count}")
    if not one and axes_count > 1:
        sizes = zip(x.shape[-axes_count:], given, strict=True)
        given = [n if out is None else out for n, out in sizes]
    return axes(name, "output_size", given, axes_count, least=0)


def windows(
    name: str,
    axes_count: int,
    kernel_size: int | Ints,
    stride: int | Ints | None,
    padding: int | Ints,
    dilation: int | Ints,
) -> Window:
    """Kernel, stride, padding and dilation, one integer per axis each, checked."""
    kernel = axes(name, "kernel_size", kernel_size, axes_count, least=1)
    # An absent stride is None in Python and an empty list in PyTorch's own schemas.
    stride = (
        kernel
        if stride is None or (isinstance(stride, Sequence) and not stride)
        else axes(name, "stride", stride, axes_count, least=1)
    )
    padding = axes(name, "padding", padding, axes_count, least=0)
    dilation = axes(name, "dilation", dilation, axes_count, least=1)
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"pad should be at most half of effective kernel size, "
                f"but got pad={p}, kernel_size={k} and dilation={d}"
            )
    return kernel, stride, padding, dilation


def pooled_size(name: str, x: HasShape, window: Window, ceil_mode: bool) -> list[int]:
    """floor((n + 2p - d(k - 1) - 1) / s) + 1; ceil mode rounds up, but for a window that would
    start beyond the input."""
    sizes = []
    for n, k, s, p, d in zip(x.shape[2:], *window, strict=True):
        reach = n + 2 * p - d * (k - 1) - 1
        out = (reach + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (out - 1) * s >= n + p:
            out -= 1
        sizes.append(out)
    if min(sizes) < 1:
        raise RuntimeError(
            f"{name}: Given input size: {tuple(x.shape[1:])}. Calculated output size: "
            f"{(x.shape[1], *sizes)}. "
            "Output size is too small"
        )
    return sizes


def conv_size(
    input_size: Ints, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> list[int]:
    """How many windows there are along each axis."""
    return [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(input_size, kernel_size, stride, padding, dilation, strict=True)
    ]


def divisor(name: str, override: int | None) -> int:
    """An average's divisor, 0 where the window decides."""
    if override is None:
        return 0
    given = integer(name, "divisor_override", override)
    if given == 0:
        raise RuntimeError("divisor must be not zero")
    return given


def axis(name: str, dim: int, x: HasShape) -> int:
    """``dim`` as an axis of ``x``, counted from the first; a scalar has one."""
    dim, count = integer(name, "dim", dim), max(x.ndim, 1)
    if not -count <= dim < count:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-count}, {count - 1}], "
            f"but got {dim})"
        )
    return dim % count


def weight_sizes(
    gates: int, inputs: int, weight_hh: HasShape, projects: bool
) -> dict[str, tuple[int, ...]]:
    """The sizes of a recurrent layer's parameters, by those of its weight of h (G H, P)."""
    rows, projected = weight_hh.shape
    hidden = rows // gates
    return {
        "weight_ih": (rows, inputs),
        "weight_hh": (gates * hidden, projected if projects else hidden),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
        "weight_hr": (projected, hidden),
        "peephole": (3, hidden),
        "norm_ih": (rows,),
        "norm_hh": (rows,),
        "norm_c": (hidden,),
        "bias_c": (hidden,),
    }


def expect(name: str, operand: str, x: HasShape, size: Sequence[int]) -> None:
    """An operand of a recurrent layer has this size."""
    if tuple(x.shape) != tuple(size):
        raise RuntimeError(f"{name}: Expected {operand} size {tuple(size)}, got {list(x.shape)}")


def packed(name: str, sizes: list[int], tokens: int) -> None:
    """``batch_sizes`` of so many packed tokens."""
    if not sizes or sizes[-1] < 1 or sizes != sorted(sizes, reverse=True):
        raise RuntimeError(f"{name}: batch_sizes should be positive and never grow, got {sizes}")
    if sum(sizes) != tokens:
        raise RuntimeError(
            f"{name}: batch_sizes add up to {sum(sizes)}, but input has {tokens} tokens"
        )
