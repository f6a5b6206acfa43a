"""How many times as fast as PyTorch each layer is, as bars of HTML: a page's text, readable at any
width."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from pydl.backends import BACKENDS
from pydl.visualize.operators import EVEN, PASSES, OperatorRow

_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
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


class Scale:
    """A logarithmic axis of ratios, on which 1 is marked; places are percentages of its width."""

    def __init__(self, ratios: Iterable[float]) -> None:
        """For these and a good part on either side of 1."""
        found = list(ratios)
        self.low = math.log(0.9 * min([0.5, *found]))
        self.high = math.log(max([2.0, *found]))

    def place(self, value: float) -> float:
        """Where a ratio lies."""
        return 100 * (math.log(value) - self.low) / (self.high - self.low)

    @property
    def style(self) -> str:
        """What the element around the tracks needs, as an attribute."""
        return f'style="--one:{self.place(1):.2f}%"'

    def bar(self, value: float, verdict: str) -> str:
        """A track with a bar from 1 to the ratio, and the ratio."""
        at, one = self.place(value), self.place(1)
        return (
            f'<div class="track"><i class="{verdict}" '
            f'style="left:{min(at, one):.1f}%;width:max(2px,{abs(at - one):.1f}%)"></i></div>'
            f'<b class="ratio {verdict}">{ratio(value)}</b>'
        )

    def ticks(self) -> str:
        """The track that names some ratios; powers of ten have to do where there is little room for
        many."""
        many = self.high - self.low > math.log(20)
        named = "".join(
            f"<span{' class=minor' * (many and not math.log10(tick).is_integer())} "
            f'style="left:{self.place(tick):.1f}%">{tick:g}&times;</span>'
            for tick in _TICKS
            if self.low <= math.log(tick) <= self.high
        )
        return f'<div class="track ticks">{named}</div>'


def key() -> str:
    """What the colours mean."""
    said = "".join(f'<span><i class="{kind}"></i>{text}</span>' for kind, text in _KEY)
    return f'<p class="key">{said}</p>'


def bars(rows: Sequence[OperatorRow], about: Mapping[str, str] | None = None) -> str:
    """Two bars for each row, one for each pass.

    Args:
        rows: wins and losses alike.
        about: by layer, what it is.
    """
    scale = Scale(row.ratio(kind) for row in rows for kind in PASSES)
    made = []
    for row in rows:
        shape = "&times;".join(map(str, row.input))
        title = escape((about or {}).get(row.layer, row.layer))
        name = f"{escape(row.layer)}, " if about else ""
        made.append(f'<div class="what"><b>{title}</b><span>{name}{shape}</span></div>')
        for kind, name in PASSES.items():
            who = f'<div class="who"><b>{name}</b>, {escape(whose(row.backends[kind]))}</div>'
            made.append(who + scale.bar(row.ratio(kind), row.verdict(kind)))
    return f'<div class="bars" {scale.style}>{"".join(made)}{scale.ticks()}</div>{key()}'
