"""How many times as fast as PyTorch each layer is, as bars of HTML: a page's text, readable at any
width."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from pydl.backends import BACKENDS
from pydl.visualize.operators import EVEN, PASSES, OperatorRow

_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_KEY = (
    ("win", "faster here"),
    ("even", f"no difference (within {100 * (EVEN - 1):.0f} %), or PyTorch's own operator serves"),
    ("lose", "slower here"),
)


def ratio(value: float) -> str:
    """A ratio in three digits at most, as HTML."""
    return f"{value:.{0 if value >= 99.5 else 1 if value >= 9.95 else 2}f}&times;"


def whose(backends: str) -> str:
    """Whose code serves, in words, for backends joined by commas."""
    names = backends.split(", ")
    said = ["PyTorch" if name == "aten" else BACKENDS[name].about for name in names]
    return " and ".join(sorted(said, reverse=True))


def bars(rows: Sequence[OperatorRow], about: Mapping[str, str] | None = None) -> str:
    """Two bars for each row, one for each pass, on a logarithmic scale around 1.

    Args:
        rows: wins and losses alike.
        about: by layer, what it is.
    """
    ratios = [row.ratio(kind) for row in rows for kind in PASSES]
    low, high = math.log(0.9 * min(0.5, *ratios)), math.log(max(2.0, *ratios))

    def place(value: float) -> float:
        return 100 * (math.log(value) - low) / (high - low)

    made = []
    for row in rows:
        shape = "&times;".join(map(str, row.input))
        title = escape((about or {}).get(row.layer, row.layer))
        name = f"{escape(row.layer)}, " if about else ""
        made.append(f'<div class="what"><b>{title}</b><span>{name}{shape}</span></div>')
        for kind, name in PASSES.items():
            at, one = place(row.ratio(kind)), place(1)
            left, width = min(at, one), abs(at - one)
            made.append(
                f'<div class="who"><b>{name}</b>, {escape(whose(row.backends[kind]))}</div>'
                f'<div class="track"><i class="{row.verdict(kind)}" '
                f'style="left:{left:.1f}%;width:max(2px,{width:.1f}%)"></i></div>'
                f'<b class="ratio {row.verdict(kind)}">{ratio(row.ratio(kind))}</b>'
            )
    ticks = "".join(
        f'<span style="left:{place(tick):.1f}%">{tick:g}&times;</span>'
        for tick in _TICKS
        if low <= math.log(tick) <= high
    )
    key = "".join(f'<span><i class="{kind}"></i>{said}</span>' for kind, said in _KEY)
    return (
        f'<div class="bars" style="--one:{place(1):.2f}%">{"".join(made)}'
        f'<div class="track ticks">{ticks}</div></div><p class="key">{key}</p>'
    )
