"""The sliding window, tap by tap.

Convolution and pooling are sums or maxima over the taps of a window. For one tap t, output position
o reads the input at o * stride - padding + t * dilation, if that is inside. ``taps`` lists, for
every tap in scan order, those positions.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch


def taps(
    input_size: Sequence[int],
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    device: torch.device,
) -> Iterator[tuple[tuple[int, ...], torch.Tensor, torch.Tensor]]:
    """For each tap: its place in the kernel, the flat input position each output reads, and whether
    that is inside.

    Positions outside are given as 0. Both tensors have one axis, the outputs' in scan order.
    """
    for tap in itertools.product(*(range(k) for k in kernel_size)):
        position = torch.zeros((), dtype=torch.int64, device=device)
        inside = torch.ones((), dtype=torch.bool, device=device)
        for axis, (n, out) in enumerate(zip(input_size, output_size, strict=True)):
            place = (
                torch.arange(out, device=device) * stride[axis]
                - padding[axis]
                + tap[axis] * dilation[axis]
            )
            position = position[..., None] * n + place
            inside = inside[..., None] & (place >= 0) & (place < n)
        inside = inside.flatten()
        yield tap, position.flatten() * inside, inside
