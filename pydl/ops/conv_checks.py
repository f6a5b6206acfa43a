"""What convolutions ask of the sizes of their operands and of their windows, in PyTorch's words and
order; imports nothing of PyTorch's, as pydl/shapes.py."""

from collections.abc import Sequence

from pydl.shapes import HasShape, Ints, integer


def per_axis(name: str, argument: str, value: int | Ints, axes: int, *, least: int) -> list[int]:
    """``value`` as one integer per axis.

    Raises:
        TypeError: not an integer or a sequence of integers.
        RuntimeError: the wrong number of them, or one below ``least``.
    """
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    given = [integer(name, argument, one, "tuple of ints") for one in many]
    if len(given) not in (1, axes):
        raise RuntimeError(
            f"expected {argument} to be a single integer value or a list of {axes} values to match "
            f"the convolution dimensions, but got {argument}={given}"
        )
    if any(one < least for one in given):
        raise RuntimeError(
            f"{'negative' if least == 0 else 'non-positive'} {argument} is not supported"
        )
    return given * axes if len(given) == 1 else given


def groups_of(name: str, groups: int) -> int:
    groups = integer(name, "groups", groups)
    if groups < 1:
        raise RuntimeError("non-positive groups is not supported")
    return groups


def resolve_padding(
    name: str,
    kernel_size: Ints,
    stride: Ints,
    padding: str | int | Ints,
    dilation: Ints,
) -> tuple[list[int], list[int]]:
    """``padding`` in numbers, and what is to be padded on the right before: 'same' pads d(k - 1) in
    all, and where that is odd, one more there."""
    axes = len(kernel_size)
    nothing = [0] * axes
    if not isinstance(padding, str):
        return per_axis(name, "padding", padding, axes, least=0), nothing
    if padding == "valid":
        return nothing, nothing
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    total = [d * (k - 1) for k, d in zip(kernel_size, dilation, strict=True)]
    return [t // 2 for t in total], [t % 2 for t in total]


def shapes(
    name: str,
    x: HasShape,
    weight: HasShape,
    bias: HasShape | None,
    groups: int,
    *,
    transposed: bool = False,
) -> None:
    """The batched input, weight and bias against each other."""
    shape, channels = list(weight.shape), x.shape[1]
    given = "Given transposed=1," if transposed else f"Given groups={groups},"
    if shape[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but "
            f"got weight of size {shape} instead"
        )
    if shape[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size [{shape}] instead"
        )
    expected = shape[0] if transposed else shape[1] * groups
    if channels != expected:
        raise RuntimeError(
            f"{given} weight of size {shape}, expected input{list(x.shape)} to have {expected} "
            f"channels, but got {channels} channels instead"
        )
    if 0 in shape[1:]:
        raise RuntimeError(
            f"{name}: weight should have at least one channel and one tap, got weight of size "
            f"{shape}"
        )
    features = shape[1] * groups if transposed else shape[0]
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != features):
        given = given if transposed else "Given"
        raise RuntimeError(
            f"{given} weight of size {shape}, expected bias to be 1-dimensional with {features} "
            f"elements, but got bias of size {list(bias.shape)} instead"
        )


def kernel_fits(x: HasShape, weight: HasShape, padding: list[int], dilation: list[int]) -> None:
    padded = [n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)]
    reach = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if any(r > n for n, r in zip(padded, reach, strict=True)):
        sizes, reaches = (" x ".join(map(str, numbers)) for numbers in (padded, reach))
        raise RuntimeError(
            f"Calculated padded input size per channel: ({sizes}). Kernel size: ({reaches}). "
            "Kernel size can't be greater than actual input size"
        )


def weight_rank(name: str, weight: HasShape, axes: int) -> None:
    if weight.ndim != axes + 2:
        raise RuntimeError(
            f"{name}: weight should have {axes + 2} dimensions, got weight of size "
            f"{list(weight.shape)}"
        )


def has_positions(x: HasShape) -> None:
    if 0 in x.shape[2:]:
        raise RuntimeError(
            "Only zero batch or zero channel inputs are supported, but got input shape: "
            f"{list(x.shape)}"
        )
