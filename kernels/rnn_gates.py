"""The arithmetic of the recurrent kernels (equations: csrc/rnn.h), of values that are widened: the
activations, one step of each cell and its gradient, layer norm of rows, zoneout.

The cell kernels (rnn_cell.py) and the sequence kernels (rnn_sequence.py) share it, so both paths
compute the same.
"""

import triton.language as tl

from .elements import as_offset, divide, inline, narrow, number, widen


@inline
def sigmoid(x):
    return divide(tl.full(x.shape, 1.0, x.dtype), 1 + tl.exp(-x))


@inline
def tanh(x):
    """Cephes' form: near 0 a rational function, for the exponential's loses all digits there."""
    square = x * x
    if x.dtype == tl.float64:
        top = (-9.64399179425052238628e-1 * square - 9.92877231001918586564e1) * square
        top = top - 1.61468768441708447952e3
        bottom = (square + 1.12811678491632931402e2) * square + 2.23548839060100448583e3
        bottom = bottom * square + 4.84406305325125486048e3
        near = x + x * square * (top / bottom)
    else:
        series = (-5.70498872745e-3 * square + 2.06390887954e-2) * square - 5.37397155531e-2
        series = (series * square + 1.33314422036e-1) * square - 3.33332819422e-1
        near = x + x * square * series
    size = tl.abs(x)
    far = 1 - divide(tl.full(x.shape, 2.0, x.dtype), tl.exp(2 * size) + 1)
    return tl.where(size < 0.625, near, tl.where(x < 0, -far, far))


@inline
def per_unit(pointer, gate, unit, hidden):
    """A parameter of one gate (G, H) at the units [1, COLUMNS]."""
    return widen(tl.load(pointer + gate * hidden + unit, mask=unit < hidden, other=0.0))


@inline
def plus_bias(p, bias_ptr, norm_ptr, gate, unit, hidden):
    """q of one gate, of its product, which is normalised where there is a norm."""
    if norm_ptr is not None:
        p = p * per_unit(norm_ptr, gate, unit, hidden)
    if bias_ptr is not None:
        p += per_unit(bias_ptr, gate, unit, hidden)
    return p


@inline
def centre(x, mean, inside):
    """x [ROWS, COLUMNS] less the mean [ROWS] of its rows, 0 outside of them."""
    return tl.where(inside, x - mean[:, None], 0.0)


@inline
def rstd_of(variance, eps):
    deviation = tl.sqrt(variance + number(eps, variance))
    return divide(tl.full(variance.shape, 1.0, variance.dtype), deviation)


@inline
def normalised_1(x, hidden, inside, eps):
    """The rows of x with mean 0 and variance 1, and their rstd [ROWS]."""
    x = centre(x, tl.sum(x, 1) / hidden, inside)
    rstd = rstd_of(tl.sum(x * x, 1) / hidden, eps)
    return x * rstd[:, None], rstd


@inline
def normalised_2(x, y, hidden, inside, eps):
    """Two gates as normalised_1, their rows together."""
    mean = (tl.sum(x, 1) + tl.sum(y, 1)) / (2 * hidden)
    x, y = centre(x, mean, inside), centre(y, mean, inside)
    rstd = rstd_of((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / (2 * hidden), eps)
    return x * rstd[:, None], y * rstd[:, None], rstd


@inline
def normalised_4(x, y, z, w, hidden, inside, eps):
    """Four gates as normalised_1, their rows together."""
    mean = (tl.sum(x, 1) + tl.sum(y, 1) + tl.sum(z, 1) + tl.sum(w, 1)) / (4 * hidden)
    x, y = centre(x, mean, inside), centre(y, mean, inside)
    z, w = centre(z, mean, inside), centre(w, mean, inside)
    squares = tl.sum(x * x, 1) + tl.sum(y * y, 1) + tl.sum(z * z, 1) + tl.sum(w * w, 1)
    rstd = rstd_of(squares / (4 * hidden), eps)
    by = rstd[:, None]
    return x * by, y * by, z * by, w * by, rstd


@inline
def norm_gradient(d_hat, hat, sums, sums_along, count, rstd):
    """The gradient of x where that of its normalised rows ``hat`` is d_hat; the sums [ROWS] are of
    d_hat and of d_hat * hat over all the ``count`` values that were normalised together."""
    return rstd[:, None] * (d_hat - (sums / count)[:, None] - hat * (sums_along / count)[:, None])


@inline
def lstm(at_i, at_f, at_g, at_o, c, peep_i, peep_f, peep_o):
    """i, f, g, o and c' of what goes into the gates; peepholes may be None."""
    if peep_i is not None:
        at_i += peep_i * c
        at_f += peep_f * c
    i, f, g = sigmoid(at_i), sigmoid(at_f), tanh(at_g)
    c_new = f * c + i * g
    if peep_o is not None:
        at_o += peep_o * c_new
    return i, f, g, sigmoid(at_o), c_new


@inline
def lstm_gradient(dc, i, f, g, c, peep_i, peep_f):
    """The gradients of what goes into i, f, g, and of c, where that of c' is dc."""
    di, df, dg = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g)
    dc = dc * f
    if peep_i is not None:
        dc += di * peep_i + df * peep_f
    return di, df, dg, dc


@inline
def activate(x, CELL: tl.constexpr):
    """rnn_tanh's or rnn_relu's; NaN is not below 0, so that relu passes it on."""
    if CELL == "rnn_relu":
        return tl.where(x <= 0, 0.0, x)
    else:
        return tanh(x)


@inline
def activation_gradient(dh, a, CELL: tl.constexpr):
    if CELL == "rnn_relu":
        return tl.where(a <= 0, 0.0, dh)
    else:
        return dh * (1 - a * a)


@inline
def part_of_old(zone_ptr, at, mask, like, zoneout):
    """How much of the old state zoneout keeps, in the dtype of ``like``; zeros where there is no
    zoneout."""
    if zone_ptr is not None:
        return (tl.load(zone_ptr + at, mask=mask, other=0) != 0).to(like.dtype)
    else:
        return tl.full(like.shape, number(zoneout, like), like.dtype)


@inline
def mixed(new, old, zone_ptr, at, mask, zoneout, MIXES: tl.constexpr):
    """The state after zoneout, by a mask or where it MIXES by a number; ``old`` may be None where
    neither is."""
    if zone_ptr is not None:
        return tl.where(tl.load(zone_ptr + at, mask=mask, other=0) != 0, old, new)
    elif MIXES:
        return number(zoneout, new) * old + number(1.0 - zoneout, new) * new
    else:
        return new


@inline
def load_before(after_ptr, first_ptr, b, at, first_at, have, mask):
    """The state a step starts from: that after another step for the sequences b < have, whose
    elements are ``at`` there, else the first state, at ``first_at``."""
    value = widen(tl.load(after_ptr + at, mask=mask & (b < have), other=0.0))
    if first_ptr is None:
        return value
    else:
        first = widen(tl.load(first_ptr + first_at, mask=mask & (b >= have), other=0.0))
        return tl.where(b < have, value, first)


@inline
def rows_and_units(rows, hidden, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """The sequences [ROWS, 1] and units [1, COLUMNS] of this program, and which of those exist."""
    program = as_offset(tl.program_id(0), WIDE)
    blocks = (hidden + COLUMNS - 1) // COLUMNS
    b = program // blocks * ROWS + tl.arange(0, ROWS)[:, None]
    unit = program % blocks * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return b, unit, (b < rows) & (unit < hidden)


@inline
def load_wide(pointer, at, mask):
    return widen(tl.load(pointer + at, mask=mask, other=0.0))


@inline
def store(pointer, at, value, mask):
    """Stores where there is a place for it."""
    if pointer is not None:
        tl.store(pointer + at, narrow(value, pointer), mask=mask)


@inline
def add_to(pointer, at, value, mask):
    tl.store(pointer + at, tl.load(pointer + at, mask=mask, other=0.0) + value, mask=mask)


@inline
def gain_gradient(norm_ptr, sums_ptr, at, across, gate, unit, hidden, dq, hat, mask):
    """The gradient of the normalised ``hat`` of one gate where that of q is dq; adds those of norm
    and bias, which lie ``across`` apart."""
    add_to(sums_ptr, at + gate * hidden, dq * hat, mask)
    add_to(sums_ptr, at + across + gate * hidden, dq, mask)
    return dq * per_unit(norm_ptr, gate, unit, hidden)


@inline
def rstd_at(pointer, at, mask):
    """The rstd [ROWS] of the rows whose offsets [ROWS, 1] are ``at``."""
    return tl.sum(load_wide(pointer, at, mask), 1)
