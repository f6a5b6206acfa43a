"""Integer arithmetic, bits and predicates. Twins for uniform registers (UIADD3) do the same."""

import re

from sass.operands import (
    MASK,
    addend,
    integer,
    is_predicate,
    plain,
    predicate,
    put,
    raw,
    set_predicate,
    signed,
)

_COMPARE = {
    "GE": int.__ge__,
    "GT": int.__gt__,
    "LE": int.__le__,
    "LT": int.__lt__,
    "EQ": int.__eq__,
    "NE": int.__ne__,
}

_JOIN = {"AND": bool.__and__, "OR": bool.__or__, "XOR": bool.__xor__}


def _carries(rest):
    """Splits off the predicates in front: those that the carry goes to."""
    count = next(i for i, operand in enumerate(rest) if not is_predicate(operand))
    return rest[:count], rest[count:]


def _move(thread, one):
    put(thread, one.operands[0], integer(thread, one.operands[1]))


def _multiply(thread, one):
    target, *rest = one.operands
    carries, (a, b, c, *more) = _carries(rest)
    x, y = integer(thread, a), integer(thread, b)
    carry_in = sum(predicate(thread, p) for p in more) if "X" in one.modifiers else 0
    if "WIDE" in one.modifiers or "HI" in one.modifiers:
        if "U32" not in one.modifiers:
            x, y = signed(x), signed(y)
        total = x * y + integer(thread, c, 2) + carry_in
        if "HI" in one.modifiers:
            put(thread, target, total >> 32)
        else:
            put(thread, target, total, 2)
        carried = total >> 64
    else:
        total = x * y + addend(thread, c) + carry_in
        put(thread, target, total)
        carried = total >> 32
    for p in carries:
        set_predicate(thread, p, carried > 0)


def _add(thread, one):
    target, *rest = one.operands
    carries, rest = _carries(rest)
    total = sum(addend(thread, operand) for operand in rest[:3])
    if "X" in one.modifiers:
        total += sum(predicate(thread, p) for p in rest[3:])
    put(thread, target, total)
    for i, p in enumerate(carries):
        set_predicate(thread, p, total >> 32 > i)


def _add_two(thread, one):
    put(thread, one.operands[0], sum(integer(thread, o) for o in one.operands[1:3]))


def _magnitude(thread, one):
    put(thread, one.operands[0], abs(signed(integer(thread, one.operands[1]))))


def _extreme(thread, one):
    """IMNMX, VIMNMX a, b; VIADDMNMX a + b, c: the least where the predicate holds."""
    target, a, b, *rest = one.operands
    x, y = integer(thread, a), integer(thread, b)
    if one.name.endswith("ADDMNMX"):
        x, y, rest = (x + y) & MASK, integer(thread, rest[0]), rest[1:]
    if "U32" not in one.modifiers:
        x, y = signed(x), signed(y)
    if "RELU" in one.modifiers:
        x, y = max(x, 0), max(y, 0)
    put(thread, target, min(x, y) if predicate(thread, rest[0]) else max(x, y))


def _extreme_of_three(thread, one):
    """VIMNMX3 a, b, c: the least where the predicate holds."""
    target, *sources, least = one.operands
    values = [integer(thread, operand) for operand in sources]
    if "U32" not in one.modifiers:
        values = [signed(value) for value in values]
    put(thread, target, min(values) if predicate(thread, least) else max(values))


def _compare(thread, one):
    first, second, a, b, joined, *low = one.operands
    x, y = integer(thread, a), integer(thread, b)
    if "U32" not in one.modifiers:
        x, y = signed(x), signed(y)
    if "EX" in one.modifiers and x == y:  # the lower words have decided
        holds = predicate(thread, low[0])
    else:
        holds = _COMPARE[one.modifiers[0]](x, y)
    join(thread, one, first, second, joined, holds)


def join(thread, one, first, second, joined, holds):
    """Sets a comparison's predicate and its opposite, each joined with another."""
    other = predicate(thread, joined)
    how = next(_JOIN[m] for m in one.modifiers if m in _JOIN)
    set_predicate(thread, first, how(holds, other))
    set_predicate(thread, second, how(not holds, other))


def _looked_up(table, x, y, z, mask):
    out = 0
    for row in range(8):
        if table >> row & 1:
            out |= (x if row & 4 else ~x) & (y if row & 2 else ~y) & (z if row & 1 else ~z)
    return out & mask


def _logic(thread, one):
    targets, (register, a, b, c, table, *more) = _carries(list(one.operands))
    values = [integer(thread, operand) for operand in (a, b, c)]
    result = _looked_up(int(table, 16), *values, MASK)
    put(thread, register, result)
    for p in targets:
        set_predicate(thread, p, result != 0 or any(predicate(thread, q) for q in more))


def _logic_of_predicates(thread, one):
    first, second, a, b, c, *tables = one.operands
    values = [int(predicate(thread, p)) for p in (a, b, c)]
    for target, table in zip((first, second), tables, strict=False):
        set_predicate(thread, target, bool(_looked_up(int(table, 16), *values, 1)))


def _shift(thread, one):
    """SHF: the funnel of two words, the third operand the upper one."""
    target, low, by, high = one.operands
    amount = integer(thread, by)
    wide = any(m in one.modifiers for m in ("U64", "S64"))
    amount = amount & (63 if wide else 31) if "W" in one.modifiers else min(amount, 63)
    lower, upper = integer(thread, low), integer(thread, high)
    funnel = upper << 32 | lower
    if "L" in one.modifiers:
        result = funnel << amount
    elif any(m in one.modifiers for m in ("S32", "S64")):
        result = signed(funnel, 64) >> amount
    else:
        result = funnel >> amount
    put(thread, target, result >> 32 if "HI" in one.modifiers else result)


def _scaled(thread, one):
    """LEA: (a << shift) + b; with HI, of a's upper word and what is shifted into it."""
    target, *rest = one.operands
    carries, rest = _carries(rest)
    at = next(i for i, operand in enumerate(rest) if i >= 2 and operand.startswith("0x"))
    (a, b, *upper), by = rest[:at], int(rest[at], 16)
    value = integer(thread, a)
    if "HI" in one.modifiers:
        if "SX32" in one.modifiers:
            value = signed(value)
        else:
            value |= (integer(thread, upper[0]) if upper else 0) << 32
        total = ((value << by) >> 32 & MASK) + integer(thread, b)
    else:
        total = (value << by & MASK) + addend(thread, b)
    if "X" in one.modifiers:
        total += sum(predicate(thread, p) for p in rest[at + 1 :])
    put(thread, target, total)
    for p in carries:
        set_predicate(thread, p, total >> 32 > 0)


def _select(thread, one):
    target, a, b, which = one.operands
    put(thread, target, integer(thread, a if predicate(thread, which) else b))


def _permute(thread, one):
    target, a, chosen, b = one.operands
    pool = b"".join(integer(thread, o).to_bytes(4, "little") for o in (a, b))
    selectors, result = integer(thread, chosen), 0
    for i in range(4):
        selector = selectors >> 4 * i & 0xF
        byte = pool[selector & 7]
        if selector & 8:
            byte = 0xFF if byte & 0x80 else 0
        result |= byte << 8 * i
    put(thread, target, result)


def _extend(thread, one):
    """SGXT: the lowest bits, with their sign unless U32."""
    target, a, bits = one.operands
    count = integer(thread, bits)
    value = integer(thread, a) & ((1 << count) - 1)
    put(thread, target, value if "U32" in one.modifiers else signed(value, count))


def _mask(thread, one):
    target, start, count = one.operands
    put(thread, target, ((1 << integer(thread, count)) - 1) << integer(thread, start))


def _population(thread, one):
    put(thread, one.operands[0], integer(thread, one.operands[1]).bit_count())


def _leading(thread, one):
    """FLO: the place of the highest bit, with SH counted from the top."""
    value = integer(thread, one.operands[-1])
    place = value.bit_length() - 1
    if "SH" in one.modifiers and value:
        place = 31 - place
    put(thread, one.operands[0], place)


def _reverse(thread, one):
    put(thread, one.operands[0], int(f"{integer(thread, one.operands[1]):032b}"[::-1], 2))


def _to_predicates(thread, one):
    """R2P PR, R0.B1, 0x7f: the bits under the mask."""
    targets, source, under = one.operands
    _, register, _, suffixes = plain(source)
    byte = next((int(s[1]) for s in suffixes if re.fullmatch(r"B\d", s)), 0)
    value = raw(thread, register) >> 8 * byte
    for i in range(7):
        if int(under, 16) >> i & 1:
            set_predicate(thread, f"{targets[:-1]}{i}", bool(value >> i & 1))


def _from_predicates(thread, one):
    target, sources, source, under = one.operands
    byte = next((int(m[1]) for m in one.modifiers if re.fullmatch(r"B\d", m)), 0)
    held = sum(thread.predicates[f"{sources[:-1]}{i}"] << i for i in range(7))
    held &= int(under, 16)
    kept = integer(thread, source) & ~(int(under, 16) << 8 * byte)
    put(thread, target, kept | held << 8 * byte)


OPERATIONS = {
    "MOV": _move,
    "R2UR": _move,
    "IMAD": _multiply,
    "IADD3": _add,
    "VIADD": _add_two,
    "IADD": _add_two,
    "IABS": _magnitude,
    "IMNMX": _extreme,
    "VIMNMX": _extreme,
    "VIADDMNMX": _extreme,
    "VIMNMX3": _extreme_of_three,
    "ISETP": _compare,
    "LOP3": _logic,
    "PLOP3": _logic_of_predicates,
    "SHF": _shift,
    "LEA": _scaled,
    "SEL": _select,
    "PRMT": _permute,
    "SGXT": _extend,
    "BMSK": _mask,
    "POPC": _population,
    "FLO": _leading,
    "BREV": _reverse,
    "R2P": _to_predicates,
    "P2R": _from_predicates,
    "R2UP": _to_predicates,
    "P2UR": _from_predicates,
}
