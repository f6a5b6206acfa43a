"""Local response normalisation across channels and its gradient (definition: csrc/lrn.h).

    scale[c] = k + alpha / size * sum over c' of x[c']^2,
               c - size / 2 <= c' <= c + (size - 1) / 2, clipped to [0, C)
    y        = x * scale^-beta
    grad_x   = grad_y * scale^-beta - 2 * alpha * beta / size * x * sum over c' of grad_y * x *
               scale^(-beta - 1), c - (size - 1) / 2 <= c' <= c + size / 2: the window transposed

Layouts: x and grad_y have any strides; y and grad_x are dense, and a program covers ROWS x COLUMNS
elements of what it writes in the order of its memory (elements.walk), where lrn_strips.py has no
faster way. Forward cannot avoid reading x and writing y once, backward reading grad_y and x and
writing grad_x once; no scale is saved, backward recomputes it.

Why this form: each element adds up its own window, so a NaN or an infinity spoils the windows it is
in and no others, and the result does not depend on where a program starts; a running sum over the
channels would do neither. The neighbours' loads hit the L1 cache: channels last they lie in the
same lines, contiguous a program covers neighbouring channels of a few pixels (WIDEST).
With the loops unrolled the compiler merges many of backward's size^2 loads of x.
"""

import torch
import triton
import triton.language as tl

from pydl.contract.lrn import LrnBackward, LrnForward

from . import runtime
from .elements import filled, inline, narrow, number, walk, widen
from .lrn_strips import (
    STRIP,
    axes_of,
    inverse_power,
    launch_rows,
    launch_strips,
    lrn_backward_row_kernel,
    lrn_backward_strip_kernel,
    lrn_forward_row_kernel,
    lrn_forward_strip_kernel,
)

# Larger windows, which no known network has, run in loops: unrolled they would compile for minutes.
UNROLLED_SIZE = 7
# The most columns of a tile.
WIDEST = 64


@inline
def scale_of(
    x_pixel,
    c,
    channels,
    channel_stride,
    mask,
    zero,
    rate,
    k,
    SIZE: tl.constexpr,
    UNROLL: tl.constexpr,
):
    """k + rate * the sum of squares in the window of channel c. ``zero``: zeros of the result's
    dtype and shape."""
    squares = zero
    for j in tl.range(0, SIZE, loop_unroll_factor=UNROLL):
        near = c + (j - SIZE // 2)
        inside = mask & (near >= 0) & (near < channels)
        x = widen(tl.load(x_pixel + near * channel_stride, mask=inside, other=0.0))
        squares += x * x
    return squares * number(rate, zero) + number(k, zero)


@triton.jit
def lrn_forward_kernel(
    x_ptr,  # (N, C, D, H, W), any strides
    y_ptr,  # (N, C, D, H, W), dense, written
    shape,
    x_stride,
    rows,
    columns,
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    x_pixel = x_ptr + n * x_stride[0] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    scale = scale_of(x_pixel, c, shape[1], x_stride[1], mask, zero, rate, k, SIZE, UNROLL)
    x = widen(tl.load(x_pixel + c * x_stride[1], mask=mask, other=0.0))
    tl.store(y_ptr + offset, narrow(x * inverse_power(scale, beta, ROOTS), y_ptr), mask=mask)


def lrn_forward(call: LrnForward) -> torch.Tensor:
    """y, in the layout of ``x``."""
    x, size, alpha, beta, k = call
    y = call.results()
    if y.numel() == 0:
        return y
    if _in_strips(y, size):
        launch_strips(lrn_forward_strip_kernel, [x], y, _constants(size, alpha, beta, k))
        return y
    if _in_rows(y, size, x):
        launch_rows(lrn_forward_row_kernel, [x], y, _constants(size, alpha, beta, k), size // 2)
        return y
    # Four elements a thread of the halves, whose window is widened in registers; else eight.
    tiling = runtime.tile(y, 512 if y.element_size() == 2 else 1024, WIDEST)
    shape, (x_stride,) = axes_of(x)
    runtime.launch(
        lrn_forward_kernel,
        runtime.programs(tiling),
        x.device,
        x,
        y,
        shape,
        x_stride,
        **tiling,
        **_constants(size, alpha, beta, k),
        WIDE=runtime.wide(x, y),
    )
    return y


@triton.jit
def lrn_backward_kernel(
    grad_y_ptr,  # (N, C, D, H, W), any strides
    x_ptr,  # (N, C, D, H, W), any strides
    grad_x_ptr,  # (N, C, D, H, W), dense, written
    shape,
    grad_y_stride,
    x_stride,
    rows,
    columns,
    rate: tl.float64,  # alpha / size
    beta: tl.float64,
    k: tl.float64,
    SIZE: tl.constexpr,
    ROOTS: tl.constexpr,
    UNROLL: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    n, c, d, h, w, offset, mask = walk(shape, rows, columns, ROWS, COLUMNS, CHANNELS_LAST, WIDE)
    grad_y_pixel = (
        grad_y_ptr
        + n * grad_y_stride[0]
        + d * grad_y_stride[2]
        + h * grad_y_stride[3]
        + w * grad_y_stride[4]
    )
    x_pixel = x_ptr + n * x_stride[0] + d * x_stride[2] + h * x_stride[3] + w * x_stride[4]
    zero = filled([ROWS, COLUMNS], 0.0, x_ptr)
    ratios = zero
    for j in tl.range(0, SIZE, loop_unroll_factor=UNROLL):
        near = c + (j - (SIZE - 1) // 2)
        inside = mask & (near >= 0) & (near < shape[1])
        # Under the mask of the program, not of this neighbour: only loads with equal masks are
        # merged.
        scale = scale_of(x_pixel, near, shape[1], x_stride[1], mask, zero, rate, k, SIZE, UNROLL)
        near_grad_y = widen(tl.load(grad_y_pixel + near * grad_y_stride[1], mask=inside, other=0.0))
        near_x = widen(tl.load(x_pixel + near * x_stride[1], mask=inside, other=0.0))
        # Outside, the scale may be 0 and its power infinite: a select, for a product with zero
        # would be NaN.
        ratio = inverse_power(scale, beta, ROOTS) / scale
        ratios += tl.where(inside, near_grad_y * near_x * ratio, 0.0)
    scale = scale_of(x_pixel, c, shape[1], x_stride[1], mask, zero, rate, k, SIZE, UNROLL)
    grad_y = widen(tl.load(grad_y_pixel + c * grad_y_stride[1], mask=mask, other=0.0))
    x = widen(tl.load(x_pixel + c * x_stride[1], mask=mask, other=0.0))
    grad_x = grad_y * inverse_power(scale, beta, ROOTS)
    grad_x -= x * ratios * number(2.0 * rate * beta, zero)
    tl.store(grad_x_ptr + offset, narrow(grad_x, grad_x_ptr), mask=mask)


def lrn_backward(call: LrnBackward) -> torch.Tensor:
    """grad_x, in the layout of ``x``."""
    grad_y, x, size, alpha, beta, k = call
    grad_x = call.results()
    if grad_x.numel() == 0:
        return grad_x
    if _in_strips(grad_x, size):
        constants = _constants(size, alpha, beta, k)
        launch_strips(lrn_backward_strip_kernel, [grad_y, x], grad_x, constants)
        return grad_x
    if _in_rows(grad_x, size, grad_y, x):
        constants = _constants(size, alpha, beta, k)
        launch_rows(lrn_backward_row_kernel, [grad_y, x], grad_x, constants, size - 1)
        return grad_x
    # Four elements a thread, two in float64: with the unrolled windows in registers there is no
    # room for more.
    tiling = runtime.tile(grad_x, 256 if grad_x.dtype == torch.float64 else 512, WIDEST)
    shape, (grad_y_stride, x_stride) = axes_of(grad_y, x)
    runtime.launch(
        lrn_backward_kernel,
        runtime.programs(tiling),
        x.device,
        grad_y,
        x,
        grad_x,
        shape,
        grad_y_stride,
        x_stride,
        **tiling,
        **_constants(size, alpha, beta, k),
        WIDE=(wide := runtime.wide(grad_y, x, grad_x)),
        maxnreg=runtime.ALL_REGISTERS if wide else None,
    )
    return grad_x


def _in_strips(y: torch.Tensor, size: int) -> bool:
    """Whether neighbouring lanes have neighbouring pixels, each of a strip of channels."""
    return not runtime.channels_last(y) and size <= UNROLLED_SIZE


def _in_rows(y: torch.Tensor, size: int, *maps: torch.Tensor) -> bool:
    """Whether a strip of channels is side by side, and a pixel a number of them."""
    whole = y.shape[1] % STRIP == 0 and size <= UNROLLED_SIZE
    return whole and runtime.channels_last(y) and runtime.dense(True, *maps)


def _constants(size: int, alpha: float, beta: float, k: float) -> dict[str, int | float]:
    """What of the definition is no tensor."""
    return {
        "rate": float(alpha) / size,
        "beta": float(beta),
        "k": float(k),
        "SIZE": size,
        "ROOTS": beta == 0.75,
        "UNROLL": size if size <= UNROLLED_SIZE else 1,
    }
