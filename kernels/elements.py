"""What the Triton kernels share on the device: which elements a program covers, and how values
enter and leave arithmetic.

Triton's interpreter, which the tests run on, computes bfloat16 wrongly without an error: it adds
the raw bits, and rounds a float32 to bfloat16 towards zero. Loads and stores are right. So every
value is widened after its load and narrowed before its store by the functions here, in which the
interpreter has its own branches.
"""

import triton
import triton.language as tl

from .runtime import INTERPRETING as _INTERPRETING

INTERPRETING = tl.constexpr(_INTERPRETING)


def inline(function):
    """``triton.jit`` for functions that kernels call. The interpreter takes them as they are: it
    would patch the whole language anew at each call of a jitted one, which costs more than the
    call."""
    return function if _INTERPRETING else triton.jit(function)


@inline
def filled(SHAPE: tl.constexpr, value, pointer):
    """A tensor of ``value`` in the dtype in which sums over what ``pointer`` loads are taken."""
    if pointer.dtype.element_ty == tl.float64:
        return tl.full(SHAPE, value, tl.float64)
    else:
        return tl.full(SHAPE, value, tl.float32)


@inline
def widen(value):
    """The value in the dtype sums are taken in: float32, float64 for float64."""
    if value.dtype == tl.float64:
        return value
    else:
        return value.to(tl.float32)


@inline
def nearest_tf32(value):
    """float32 rounded to the nearest TF32, ties away from zero: the tensor cores would cut the last
    13 bits off."""
    if INTERPRETING:
        bits = value.to(tl.uint32, bitcast=True)
        rounded = ((bits + 0x1000) & 0xFFFFE000).to(tl.float32, bitcast=True)
        return tl.where(value == value, rounded, value)
    else:
        return tl.inline_asm_elementwise(
            "cvt.rna.tf32.f32 $0, $1;", "=r,r", [value], dtype=tl.float32, is_pure=True, pack=1
        )


@inline
def operand(value, INPUT_PRECISION: tl.constexpr):
    """The value as an operand of ``tl.dot``: float32 as TF32 where that is asked for, else as it
    is, for the tensor cores to widen; widened when interpreting."""
    if INPUT_PRECISION == "tf32":
        return nearest_tf32(value)
    elif INTERPRETING:
        return widen(value)
    else:
        return value


@inline
def narrow(value, pointer):
    """The value in the dtype that ``pointer`` stores, rounded to nearest even."""
    if INTERPRETING and pointer.dtype.element_ty == tl.bfloat16:
        bits = value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(
            value == value, rounded, 0x7FC0
        )  # the addition could carry a NaN over into zero
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(pointer.dtype.element_ty)


@inline
def number(value, like):
    """An argument of float64, which keeps all digits and makes no kernel of its own as a constant
    would, in the dtype of ``like``. The interpreter's is one of Python's."""
    if INTERPRETING:
        return value
    else:
        return value.to(like.dtype)


@inline
def divide(value, divisor):
    """``value / divisor``, rounded correctly; ``/`` alone is two units off in float32."""
    if value.dtype == tl.float64:
        return value / divisor.to(tl.float64)
    else:
        return tl.math.div_rn(value, divisor.to(tl.float32))


@inline
def apart_in(block, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """The columns of a block [LANES, WIDTH], WIDTH a power of two: as many values [LANES]. Where a
    lane holds a row, which is how the compiler loads one of 16 bytes, nothing moves."""
    LOG: tl.constexpr = tl.constexpr(WIDTH).value.bit_length() - 1
    parts = (block,)
    for level in tl.static_range(LOG):
        more = ()
        for i in tl.static_range(1 << level):
            halves = tl.reshape(parts[i], [LANES, 2, WIDTH >> (level + 1)])
            first, second = tl.split(tl.permute(halves, (0, 2, 1)))
            more = more + (first, second)
        parts = more
    out = ()
    for i in tl.static_range(WIDTH):
        out = out + (tl.reshape(parts[i], [LANES]),)
    return out


@inline
def side_by_side(columns, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """The block [LANES, WIDTH] of so many columns [LANES]: apart_in, undone."""
    LOG: tl.constexpr = tl.constexpr(WIDTH).value.bit_length() - 1
    parts = ()
    for i in tl.static_range(WIDTH):
        parts = parts + (tl.reshape(columns[i], [LANES, 1]),)
    for level in tl.static_range(LOG):
        more = ()
        for i in tl.static_range(WIDTH >> (level + 1)):
            both = tl.permute(tl.join(parts[2 * i], parts[2 * i + 1]), (0, 2, 1))
            more = more + (tl.reshape(both, [LANES, 2 << level]),)
        parts = more
    return parts[0]


@inline
def as_offset(index, WIDE: tl.constexpr):
    """An index or a size in the width of offsets, in which products of sizes are taken."""
    return tl.cast(index, tl.int64) if WIDE else index


@inline
def divided(index, size):
    """Quotient and remainder of an index that is not negative: in 32 bits by the division without
    sign, of half as many instructions."""
    if index.dtype == tl.int32:
        whole = (index.to(tl.uint32) // tl.cast(size, tl.uint32)).to(tl.int32)
    else:
        whole = index // size
    return whole, index - whole * size


@inline
def within(position, size):
    """Whether a position of an axis is in [0, size), by one comparison without sign."""
    if position.dtype == tl.int32:
        return position.to(tl.uint32, bitcast=True) < tl.cast(size, tl.uint32)
    else:
        return (position >= 0) & (position < size)


@inline
def pixel(index, D, H, W):
    """The (n, d, h, w) of the index-th pixel of a map, counted with w fastest."""
    # Axis by axis: a product of sizes, which come in 32 bits, could be too large for them.
    index, w = divided(index, W)
    index, h = divided(index, H)
    n, d = divided(index, D)
    return n, d, h, w


@inline
def known_one(size):
    """Whether a size is the constant that Triton makes of 1."""
    if isinstance(size, int):
        return size == 1
    else:
        return False


@inline
def pixel_of_plane(index, shape):
    """The (d, h, w) of the index-th pixel of a plane; of two axes, by one division."""
    rest, w = divided(index, shape[4])
    if known_one(shape[2]):
        return rest * 0, rest, w
    else:
        d, h = divided(rest, shape[3])
        return d, h, w


@inline
def walk(
    shape,
    rows,
    columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Which elements of a dense (N, C, D, H, W) map this program covers, in the order of its
    memory: (n, c, d, h, w), the offset in the map, and the mask, each of a shape that broadcasts to
    [ROWS, COLUMNS].

    Contiguous: a row is a plane (n, c), a column one of its pixels. Channels last: a row is a
    pixel, a column a channel. So lanes next to each other in a row touch neighbours in memory, and
    the divisions that take an index apart are made once per row or column, not once per
    element.
    """
    program = as_offset(tl.program_id(0), WIDE)
    column_blocks = (columns + COLUMNS - 1) // COLUMNS
    row = (program // column_blocks) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
    column = (program % column_blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]  # [1, COLUMNS]
    if CHANNELS_LAST:
        n, d, h, w = pixel(row, shape[2], shape[3], shape[4])
        c = column
    else:
        d, h, w = pixel_of_plane(column, shape)
        n, c = divided(row, shape[1])
    return n, c, d, h, w, row * columns + column, (row < rows) & (column < columns)


@inline
def place(n, c, d, h, w, offset, stride, DENSE: tl.constexpr):
    """Where the elements that :func:`walk` found lie in a map of these strides: as in the result
    where the map is dense as that is (runtime.dense). Without axes that are taken apart the
    compiler sees neighbours, and loads 16 bytes at once."""
    if DENSE:
        return offset
    else:
        return n * stride[0] + c * stride[1] + d * stride[2] + h * stride[3] + w * stride[4]


@inline
def read_at(
    position, tap, size, STRIDE: tl.constexpr, PADDING: tl.constexpr, DILATION: tl.constexpr
):
    """Where the window ``position`` of one axis reads with its tap ``tap``, and whether that is
    inside."""
    source = position * STRIDE - PADDING + tap * DILATION
    return source, (source >= 0) & (source < size)


@inline
def window_over(
    source,
    which,
    windows,
    CANDIDATES: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DILATION: tl.constexpr,
):
    """The which-th of the CANDIDATES windows of one axis that may cover the element ``source``,
    with which tap it does, and whether it does."""
    position = (source + PADDING) // STRIDE - (CANDIDATES - 1) + which
    reach = source + PADDING - position * STRIDE
    tap = reach // DILATION
    return (
        position,
        tap,
        (position >= 0) & (position < windows) & (reach % DILATION == 0) & (tap < KERNEL),
    )
