"""Floating-point arithmetic and conversions, rounded after each operation as a GPU rounds; special
functions are exact but for that."""

import math
import struct

from sass.integers import join
from sass.operands import (
    bits_of,
    double,
    float_of,
    integer,
    number,
    plain,
    predicate,
    put,
    put_double,
    put_number,
    raw,
    set_predicate,
    signed,
)

_COMPARE = {
    "GE": float.__ge__,
    "GT": float.__gt__,
    "LE": float.__le__,
    "LT": float.__lt__,
    "EQ": float.__eq__,
    "NE": lambda x, y: x < y or x > y,
    "NUM": lambda x, y: not (math.isnan(x) or math.isnan(y)),
    "NAN": lambda x, y: math.isnan(x) or math.isnan(y),
    "T": lambda x, y: True,
}


def _arithmetic(read, write, combine):
    def operation(thread, one):
        target, *sources = one.operands
        try:
            value = combine(*(read(thread, o) for o in sources))
        except OverflowError:
            value = math.inf
        if "SAT" in one.modifiers:
            value = min(max(value, 0.0), 1.0)
        write(thread, target, value)

    return operation


def _holds(how, x, y):
    if how in _COMPARE:
        return _COMPARE[how](x, y)
    return _COMPARE[how.removesuffix("U")](x, y) or math.isnan(x) or math.isnan(y)


def _comparison(read):
    def operation(thread, one):
        first, second, a, b, joined = one.operands
        holds = _holds(one.modifiers[0], read(thread, a), read(thread, b))
        join(thread, one, first, second, joined, holds)

    return operation


def _set(thread, one):
    """FSET.BF: 1.0 where the comparison holds."""
    target, a, b, joined = one.operands
    how = next(m for m in one.modifiers if m != "BF")
    holds = _holds(how, number(thread, a), number(thread, b)) and predicate(thread, joined)
    put_number(thread, target, float(holds))


def _select(thread, one):
    target, a, b, which = one.operands
    put_number(thread, target, number(thread, a if predicate(thread, which) else b))


def _extreme(thread, one):
    target, a, b, least = one.operands
    x, y = number(thread, a), number(thread, b)
    if math.isnan(x) or math.isnan(y):
        value = math.nan if "NAN" in one.modifiers else x if math.isnan(y) else y
    else:
        value = min(x, y) if predicate(thread, least) else max(x, y)
    put_number(thread, target, value)


def _inverse(x):
    return math.copysign(math.inf, x) if x == 0 else 1 / x


_SPECIAL = {
    "RCP": _inverse,
    "RSQ": lambda x: math.nan if x < 0 else math.inf if x == 0 else 1 / math.sqrt(x),
    "SQRT": lambda x: math.nan if x < 0 else math.sqrt(x),
    "EX2": lambda x: 2.0 ** min(x, 1000.0),
    "LG2": lambda x: math.nan if x < 0 else -math.inf if x == 0 else math.log2(x),
    "SIN": lambda x: math.sin(x * 2 * math.pi),
    "COS": lambda x: math.cos(x * 2 * math.pi),
    "TANH": math.tanh,
}


def _special(thread, one):
    target, source = one.operands
    function = one.modifiers[0]
    if function.endswith("64H"):  # of a double's upper word
        x = struct.unpack("<d", struct.pack("<Q", integer(thread, source) << 32))[0]
        value = _SPECIAL[function.removesuffix("64H")](x)
        return put(thread, target, struct.unpack("<Q", struct.pack("<d", value))[0] >> 32)
    x = number(thread, source)
    return put_number(thread, target, math.nan if math.isnan(x) else _SPECIAL[function](x))


def _no_slow_path(thread, one):
    """FCHK asks whether a division needs care."""
    set_predicate(thread, one.operands[0], False)


def _from_integer(thread, one):
    target, source = one.operands
    wide = "S64" in one.modifiers or "U64" in one.modifiers
    value = integer(thread, source, 2 if wide else 1)
    if "U8" in one.modifiers or "U16" in one.modifiers:
        value &= 0xFF if "U8" in one.modifiers else 0xFFFF
    elif "U32" not in one.modifiers and "U64" not in one.modifiers:
        value = signed(value, 64 if wide else 32)
    if "F64" in one.modifiers:
        return put_double(thread, target, float(value))
    bits = bits_of(value)
    if "RP" in one.modifiers and float_of(bits) < value:  # of a positive number, up
        bits += 1
    return put(thread, target, bits)


def _to_integer(thread, one):
    target, source = one.operands
    x = double(thread, source) if "F64" in one.modifiers else number(thread, source)
    wide = "U64" in one.modifiers or "S64" in one.modifiers
    bits = 64 if wide else 32
    unsigned = "U32" in one.modifiers or "U64" in one.modifiers
    least, most = (0, (1 << bits) - 1) if unsigned else (-(1 << bits - 1), (1 << bits - 1) - 1)
    rounding = {"FLOOR": math.floor, "CEIL": math.ceil, "TRUNC": math.trunc}
    how = next((rounding[m] for m in one.modifiers if m in rounding), round)
    value = 0 if math.isnan(x) else most if x > most else least if x < least else how(x)
    put(thread, target, value, 2 if wide else 1)


def _round(thread, one):
    rounding = {"FLOOR": math.floor, "CEIL": math.ceil, "TRUNC": math.trunc}
    how = next((rounding[m] for m in one.modifiers if m in rounding), round)
    x = number(thread, one.operands[1])
    put_number(thread, one.operands[0], float(how(x)) if math.isfinite(x) else x)


def _convert(thread, one):
    """F2F.F64.F32, F2F.F32.F64, F2F.F16.F32, F2F.BF16.F32."""
    target, source = one.operands
    to, of = one.modifiers[-2:]
    value = double(thread, source) if of == "F64" else number(thread, source)
    if to == "F64":
        put_double(thread, target, value)
    elif to == "F32":
        put_number(thread, target, value)
    else:
        put(thread, target, _half(value, to))


def _half(value, kind):
    if kind == "BF16":
        bits = bits_of(value)
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF if value == value else 0x7FFF
    try:
        return struct.unpack("<H", struct.pack("<e", value))[0]
    except OverflowError:
        return 0x7C00 if value > 0 else 0xFC00


def _pack(thread, one):
    """F2FP.BF16.F32.PACK_AB R0, high, low."""
    target, high, low, *_ = one.operands
    kind = "BF16" if "BF16" in one.modifiers else "F16"
    upper, lower = (_half(number(thread, o), kind) for o in (high, low))
    put(thread, target, upper << 16 | lower)


def _pairs(thread, one, operands):
    """The two halves, lower and upper, of each operand: R1, R1.H1_H1 twice the upper, and of
    constants two operands, the upper in front."""
    bf16 = any(m.startswith("BF16") for m in one.modifiers)
    out, rest = [], list(operands)
    while rest:
        sign, name, magnitude, suffixes = plain(rest.pop(0))
        if name[0] not in "RUc":
            upper, (sign_of_lower, lower, _, _) = float(sign + name), plain(rest.pop(0))
            out.append((float(sign_of_lower + lower), upper))
            continue
        bits = raw(thread, name)
        both = [bits & 0xFFFF, bits >> 16]
        if suffixes:
            both = [both[suffixes[0] == "H1_H1"]] * 2
        if bf16:
            values = [float_of(half << 16) for half in both]
        else:
            values = [struct.unpack("<e", struct.pack("<H", half))[0] for half in both]
        values = [abs(v) for v in values] if magnitude else values
        out.append(tuple(-v for v in values) if sign == "-" else tuple(values))
    return out


def _halves(combine):
    """HADD2, HMUL2, HFMA2 of two halves at once; with F32 of one, the sum in float32."""

    def operation(thread, one):
        target, *sources = one.operands
        if "F32" in one.modifiers:
            return put_number(thread, target, combine(*(number(thread, o) for o in sources)))
        kind = "BF16" if any(m.startswith("BF16") for m in one.modifiers) else "F16"
        results = [combine(*each) for each in zip(*_pairs(thread, one, sources), strict=True)]
        if "RELU" in one.modifiers:
            results = [max(value, 0.0) for value in results]
        lower, upper = (_half(value, kind) for value in results)
        return put(thread, target, upper << 16 | lower)

    return operation


def _extreme_of_halves(thread, one):
    """HMNMX2 R0, R1, R2, PT: the least where the predicate holds."""
    target, *sources, least = one.operands

    def pick(x, y):
        if math.isnan(x) or math.isnan(y):
            return math.nan if "NAN" in one.modifiers else x if math.isnan(y) else y
        return min(x, y) if predicate(thread, least) else max(x, y)

    kind = "BF16" if any(m.startswith("BF16") for m in one.modifiers) else "F16"
    results = [pick(*each) for each in zip(*_pairs(thread, one, sources), strict=True)]
    lower, upper = (_half(value, kind) for value in results)
    put(thread, target, upper << 16 | lower)


def _comparison_of_halves(thread, one):
    """HSETP2: a predicate for each half."""
    lower, upper, *sources, joined = one.operands
    how = next(m for m in one.modifiers if m in _COMPARE or m.removesuffix("U") in _COMPARE)
    other = predicate(thread, joined)
    for target, each in zip(
        (lower, upper), zip(*_pairs(thread, one, sources), strict=True), strict=True
    ):
        holds = _holds(how, *each)
        set_predicate(thread, target, holds or other if "OR" in one.modifiers else holds and other)


_SINGLE, _DOUBLE = (number, put_number), (double, put_double)
OPERATIONS = {
    "FADD": _arithmetic(*_SINGLE, lambda x, y: x + y),
    "FMUL": _arithmetic(*_SINGLE, lambda x, y: x * y),
    "FFMA": _arithmetic(*_SINGLE, lambda x, y, z: x * y + z),
    "DADD": _arithmetic(*_DOUBLE, lambda x, y: x + y),
    "DMUL": _arithmetic(*_DOUBLE, lambda x, y: x * y),
    "DFMA": _arithmetic(*_DOUBLE, lambda x, y, z: x * y + z),
    "FSETP": _comparison(number),
    "DSETP": _comparison(double),
    "FSET": _set,
    "FSEL": _select,
    "FMNMX": _extreme,
    "MUFU": _special,
    "FCHK": _no_slow_path,
    "I2F": _from_integer,
    "I2FP": _from_integer,
    "F2I": _to_integer,
    "FRND": _round,
    "F2F": _convert,
    "F2FP": _pack,
    "HADD2": _halves(lambda x, y: x + y),
    "HMUL2": _halves(lambda x, y: x * y),
    "HFMA2": _halves(lambda x, y, z: x * y + z),
    "HMNMX2": _extreme_of_halves,
    "HSETP2": _comparison_of_halves,
}
