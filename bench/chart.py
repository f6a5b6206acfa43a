"""The picture in README: one dot per measured row, how many times as fast as PyTorch.

An SVG written by hand, so that it is the same on every machine and follows the reader's dark theme.
"""

import math
from collections.abc import Mapping, Sequence

from figures import Figure

_WIDTH, _LEFT, _RIGHT, _TOP, _LINE = 860, 150, 24, 74, 26
_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
_STYLE = """\
<style>
text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1c2430 }
.title { font-weight: 600; font-size: 15px } .faint { fill: #667085 } .name { text-anchor: end }
.tick { text-anchor: middle; fill: #667085; font-size: 12px }
line { stroke: #d8dde6 } .one { stroke: #1c2430 } .paper { fill: #ffffff }
.forward { fill: #2563c9 } .training { fill: #d9822b } .left { fill: none; stroke: #98a2b3 }
@media (prefers-color-scheme: dark) {
text { fill: #e7ebf1 } .faint, .tick { fill: #98a2b3 } line { stroke: #363e4b }
.one { stroke: #e7ebf1 } .paper { fill: #12161c }
.forward { fill: #6ea8ff } .training { fill: #ffb066 } .left { stroke: #7b8698 } }
</style>"""


def svg(rows: Mapping[str, Sequence[Figure]], where: str) -> str:
    """A line for each kind of operator, on a logarithmic scale."""
    bottom = _TOP + _LINE * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 40}" '
        f'width="{_WIDTH}" height="{bottom + 40}" role="img" '
        'aria-label="Speed relative to PyTorch, by operator">',
        _STYLE,
        '<rect class="paper" width="100%" height="100%"/>',
        '<text class="title" x="16" y="24">Times as fast as PyTorch</text>',
        f'<text class="faint" x="16" y="44">{where}</text>',
        *_legend(62),
    ]
    for tick in _TICKS:
        x, kind = _x(tick), ' class="one"' if tick == 1 else ""
        parts.append(f'<line{kind} x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x}" y="{bottom + 18}">{tick:g}</text>')
    for place, (kind, figures) in enumerate(rows.items()):
        y = _TOP + _LINE * place + _LINE // 2
        parts.append(f'<text class="name" x="{_LEFT - 14}" y="{y + 4}">{kind}</text>')
        for figure in figures:
            forward = figure.step == "forward"
            mark = "left" if not figure.taken else "forward" if forward else "training"
            parts.append(_dot(_x(figure.ratio), y - 4 if forward else y + 4, mark))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(y: int) -> list[str]:
    parts, x = [], 16
    for mark, said, width in (
        ("forward", "forward", 84),
        ("training", "forward + backward, or gradients alone", 300),
        ("left", "left to PyTorch's own operator by auto", 0),
    ):
        parts.append(_dot(x + 5, y - 4, mark))
        parts.append(f'<text class="faint" x="{x + 15}" y="{y}">{said}</text>')
        x += width
    return parts


def _dot(x: float, y: float, mark: str) -> str:
    return f'<circle class="{mark}" cx="{x}" cy="{y}" r="4"/>'


def _x(ratio: float) -> float:
    low, high = math.log(0.36), math.log(_TICKS[-1])
    share = (math.log(max(ratio, 0.36)) - low) / (high - low)
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)
