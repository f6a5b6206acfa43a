"""Batch normalisation with residual and activation (csrc/batch_norm.h has the definition).

Vectors are (C,) and float32, float64 for maps of float64. The mask of an activation holds one bit
per element: element i of a row is bit i % 8 of byte i / 8, and rows are whole bytes.
"""

import math
from typing import NamedTuple

import torch

from pydl import layout, plan
from pydl.contract.call import Four, Pair, Tensor, Written

_PLACES = (1, 2, 4, 8, 16, 32, 64, 128)


def mask_rows_are_pixels(x: Tensor) -> bool:
    """Whether a row of the mask of a map like ``x`` is the channels of a pixel: channels last, or
    one pixel per image; otherwise it is a plane."""
    return layout.channels_last(x) or math.prod(x.shape[2:]) == 1


def mask(x: Tensor) -> Tensor:
    """The unwritten mask of the map ``x``: (N, C, bytes of a plane) or (N, pixels, bytes of a
    pixel's channels)."""
    plane, channels = math.prod(x.shape[2:]), x.shape[1]
    rows, row = (plane, channels) if mask_rows_are_pixels(x) else (channels, plane)
    shape = (x.shape[0], rows, (row + 7) // 8)
    return layout.empty(shape, x, dtype=torch.uint8, layout=torch.contiguous_format)


def pack(flags: Tensor, x: Tensor) -> Tensor:
    """The mask of booleans ``flags`` (N, C, spatial...) in the layout of the map ``x``."""
    rows = flags.flatten(2)  # (N, C, pixels)
    rows = rows.transpose(1, 2) if mask_rows_are_pixels(x) else rows
    rows = torch.nn.functional.pad(rows.int(), (0, -rows.shape[2] % 8))
    places = torch.tensor(_PLACES, dtype=torch.int32, device=rows.device)
    bytes = rows.reshape(*rows.shape[:2], rows.shape[2] // 8, 8) * places
    return bytes.sum(-1).to(torch.uint8)


def unpack(mask: Tensor, x: Tensor) -> Tensor:
    """The booleans, of the shape of the map ``x``."""
    places = torch.tensor(_PLACES, dtype=torch.uint8, device=mask.device)
    rows = (mask.unsqueeze(-1) & places).ne(0).reshape(*mask.shape[:2], mask.shape[2] * 8)
    plane, channels = math.prod(x.shape[2:]), x.shape[1]
    if mask_rows_are_pixels(x):
        rows = rows[..., :channels].transpose(1, 2)
    return rows[..., :plane].reshape(x.shape)


def sums(x: Tensor) -> Pair:
    """Two unwritten numbers per channel."""
    return layout.channel_sums(x), layout.channel_sums(x)


def room(
    x: Tensor, runs: int = 0, kept: Pair | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """mean and var, in memory of their own unless there are some to be kept, and what sums over
    ``runs`` runs of pixels leave, (2, runs, C). One allocation, which takes as long as a launch."""
    rows, channels = 2 * runs + 2 * (kept is None), x.shape[1]
    if rows == 0:
        assert kept is not None
        return *kept, None
    width = -(-channels // 4) * 4  # each row begins at 16 bytes
    plain = torch.contiguous_format
    memory = layout.empty((rows, width), x, dtype=layout.sums_dtype(x), layout=plain)
    parts = memory[: 2 * runs, :channels].view(2, runs, channels) if runs else None
    mean, var = (memory[-2, :channels], memory[-1, :channels]) if kept is None else kept
    return mean, var, parts


def counted(batches: Tensor | None, momentum: float | None) -> None:
    """What is left to do of counting a batch, for which a kernel with a momentum adds 1: a version
    of the number, as by PyTorch's layers. Without a momentum the kernel reads, in all of its
    blocks, what counts this batch already."""
    if batches is None:
        return
    if momentum is None:
        plan.step(torch.Tensor.add_, batches, 1)
    else:
        plan.step(torch._C._increment_version, (batches,))


def _result(x: Tensor, activation: str, keep_mask: bool) -> Pair:
    kept = keep_mask and activation != "none"
    return layout.empty(x.shape, x), mask(x) if kept else layout.nothing(x, dtype=torch.uint8)


def _grads(x: Tensor, wants_residual: bool) -> Pair:
    residual = layout.empty(x.shape, x) if wants_residual else layout.nothing(x)
    return layout.empty(x.shape, x), residual


class BatchNormStats(NamedTuple):
    x: Tensor  # (N, C, ...)

    def results(self) -> Pair:
        """mean and var (biased) of each channel."""
        return sums(self.x)


class BatchNormApply(NamedTuple):
    """Inference, by given statistics."""

    x: Tensor  # (N, C, ...)
    mean: Tensor
    var: Tensor
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None  # like x
    eps: float
    activation: str
    slope: float
    keep_mask: bool

    def results(self) -> Pair:
        """y, like x, and the mask of its activation: no elements unless it is kept."""
        return _result(self.x, self.activation, self.keep_mask)


class BatchNormForward(NamedTuple):
    """Training, by the statistics of the batch."""

    x: Tensor  # (N, C, ...)
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None  # like x
    eps: float
    activation: str
    slope: float
    keep_mask: bool

    def results(self) -> Four:
        """y and mask as of :class:`BatchNormApply`, mean, var."""
        return *_result(self.x, self.activation, self.keep_mask), *sums(self.x)


class BatchNormTrain(NamedTuple):
    """The same, moving running statistics towards the batch's."""

    x: Tensor  # (N, C, ...)
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None  # like x
    running_mean: Written  # contiguous, of x's dtype or that of sums
    running_var: Written  # like running_mean
    num_batches_tracked: Written | None  # one int64: incremented first
    momentum: float | None  # None: 1 / num_batches_tracked
    eps: float
    activation: str
    slope: float
    keep: bool  # what a backward needs

    def results(self) -> Four:
        """As of :class:`BatchNormForward`; mask, mean and var have no elements unless they are
        kept."""
        both = sums(self.x) if self.keep else (layout.nothing(self.x), layout.nothing(self.x))
        return *_result(self.x, self.activation, self.keep), *both

    def without_running(self) -> BatchNormForward:
        """What is made of x, whatever becomes of the running statistics."""
        x, weight, bias, residual, _, _, _, _, eps, activation, slope, keep = self
        return BatchNormForward(x, weight, bias, residual, eps, activation, slope, keep)


class BatchNormGradSums(NamedTuple):
    grad_y: Tensor  # (N, C, ...)
    x: Tensor  # like grad_y
    mean: Tensor
    var: Tensor
    mask: Tensor | None
    eps: float
    activation: str
    slope: float

    def results(self) -> Pair:
        """The sums per channel of the gradient behind the activation, and of it times the
        normalised x."""
        return sums(self.x)


class BatchNormGradInput(NamedTuple):
    grad_y: Tensor  # (N, C, ...)
    x: Tensor  # like grad_y
    mean: Tensor
    var: Tensor
    weight: Tensor | None
    mask: Tensor | None
    sum_g: Tensor | None  # None: the statistics were given
    sum_gx: Tensor | None
    elements: float  # per channel, of the whole batch
    eps: float
    activation: str
    slope: float
    wants_residual: bool

    def results(self) -> Pair:
        """grad_x, like x; the residual's gradient, no elements where it is not wanted."""
        return _grads(self.x, self.wants_residual)


class BatchNormBackward(NamedTuple):
    """Both of the above: training on one device."""

    grad_y: Tensor  # (N, C, ...)
    x: Tensor  # like grad_y
    mean: Tensor
    var: Tensor
    weight: Tensor | None
    mask: Tensor | None
    eps: float
    activation: str
    slope: float
    wants_residual: bool

    def results(self) -> Four:
        """grad_x, the residual's gradient, and both sums."""
        return *_grads(self.x, self.wants_residual), *sums(self.x)
