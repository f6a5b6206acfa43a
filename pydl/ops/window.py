"""What every pooling asks of its input and of its windows, and how many windows there are."""

from collections.abc import Sequence

import torch

from pydl.ops import checks


def batched(operator_name: str, x: torch.Tensor, axes: int) -> torch.Tensor:
    """The input as (N, C, spatial...), its axes checked."""
    checks.rank(operator_name, x, axes)
    if 0 in x.shape[-axes - 1 :]:
        raise RuntimeError(
            f"Expected {axes + 1}D or {axes + 2}D (batch mode) tensor with optional 0 dim batch "
            "size for input to "
            f"{operator_name}, but got: {list(x.shape)}"
        )
    return (x if x.ndim == axes + 2 else x.unsqueeze(0)).resolve_neg()


def windows(
    name: str,
    axes: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, stride, padding and dilation, one integer an axis each, checked."""
    kernel = checks.axes(name, "kernel_size", kernel_size, axes, least=1)
    # An absent stride is None in Python and an empty list in PyTorch's own schemas.
    stride = (
        kernel
        if stride is None or (isinstance(stride, Sequence) and not stride)
        else checks.axes(name, "stride", stride, axes, least=1)
    )
    padding = checks.axes(name, "padding", padding, axes, least=0)
    dilation = checks.axes(name, "dilation", dilation, axes, least=1)
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if p > ((k - 1) * d + 1) // 2:
            raise RuntimeError(
                f"{name}: pad should be at most half of effective kernel size, "
                f"but got pad={p}, kernel_size={k} and dilation={d}"
            )
    return kernel, stride, padding, dilation


def outputs(
    name: str,
    x: torch.Tensor,
    window: tuple[list[int], list[int], list[int], list[int]],
    ceil_mode: bool,
) -> list[int]:
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
