"""Lists of bars on the page of results, one a line."""

from collections.abc import Sequence
from html import escape

from pydl.bench.reading import Line
from pydl.visualize import page
from pydl.visualize.bars import Scale, ratio
from pydl.visualize.operators import verdict

STYLE = """
main { max-width: 76rem; }
.lines { font-size: .82rem; line-height: 1.35; margin-bottom: .9rem; --one: 0%; }
.lines > div { display: grid; column-gap: .6rem; align-items: center; padding: .14rem 0;
  grid-template-columns: minmax(8rem, 1fr) 9rem 5.2rem minmax(8rem, 1.6fr) 3.4rem 3.4rem; }
.lines span { color: var(--faint); }
.lines .name { color: var(--ink); } .name, .about { overflow-wrap: anywhere; }
.lines .track { grid-column: 4; } .lines .ratio { grid-column: 5; }
.lines .ratio + b { grid-column: 6; text-align: right; font-variant-numeric: tabular-nums; }
.lines .head b { font-weight: 400; text-align: right; align-self: end; line-height: 1.2; }
.families > div { grid-template-columns: 10rem 1fr 9rem; }
.families .track { grid-column: 2; height: 1.1rem; }
.families .track i { width: 6px; height: 6px; margin: .32rem 0 0 -3px; border-radius: 50%;
  bottom: auto; opacity: .7; }
.families span:last-child { text-align: right; }
.track u { position: absolute; top: -.1rem; bottom: -.1rem; width: 2px; background: var(--ink); }
@media (max-width: 44rem) {
  .lines > div { grid-template-columns: 1fr 3.2rem 3.2rem; padding: .35rem 0; }
  .lines .name { grid-column: 1 / -1; font-weight: 600; }
  .lines .about { grid-column: 1; } .lines .by { grid-column: 2 / -1; text-align: right; }
  .lines .track { grid-column: 1; } .lines .ratio { grid-column: 2; }
  .lines .ratio + b { grid-column: 3; }
  .lines .head .name, .lines .head .about, .lines .head .by { display: none; }
  .families > div { grid-template-columns: 7.5rem 1fr; }
  .families .name { grid-column: 1; } .families .track { grid-column: 2; }
  .families span:last-child { grid-column: 2; text-align: left; }
}
"""
_ENDS = 16  # of a long list are shown at once: so many of the best, and of the worst


def bars(lines: Sequence[Line]) -> str:
    """A bar for each line, the fastest first."""
    scale = Scale(line.ratio for line in lines)
    compiled = any(line.compiled is not None for line in lines)
    ordered = sorted(lines, key=lambda line: -line.ratio)
    made = [
        entry(
            line,
            scale.bar(line.ratio, line.verdict),
            "" if line.compiled is None else _against_compiler(line.compiled),
        )
        for line in ordered
    ]
    by = "by" if any(line.served for line in lines) else ""
    top = head(scale.ticks(), "to PyTorch", "to torch. compile" if compiled else "", by=by)
    return listed(top, made, scale.style)


def _against_compiler(value: float) -> str:
    return f'<b class="{verdict(value, "")}">{ratio(value)}</b>'


def head(ticks: str, *columns: str, by: str) -> str:
    """What the columns of a list are: the axis, then those of figures."""
    named = "".join(f'<b class="{"ratio" * (not i)}">{name}</b>' for i, name in enumerate(columns))
    words = ("name", ""), ("about", "input"), ("by", by)
    spans = "".join(f'<span class="{kind}">{said}</span>' for kind, said in words)
    return f'<div class="head">{spans}{ticks}{named}</div>'


def entry(line: Line, bar: str, last: str, by: str | None = None) -> str:
    """One line: what was measured, its bar and figure, and another figure; ``by`` is who served it,
    where nothing else is to be said."""
    words = (
        ("name", line.name),
        ("about", line.about.replace("x", "\N{MULTIPLICATION SIGN}")),
        ("by", line.served if by is None else by),
    )
    spans = "".join(f'<span class="{kind}">{escape(said)}</span>' for kind, said in words)
    return f"<div>{spans}{bar}{last}</div>"


def listed(head: str, lines: Sequence[str], style: str) -> str:
    """Of a long list both ends are seen at once, as many of the best as of the worst."""

    def block(*some: str) -> str:
        return f'<div class="lines" {style}>{"".join(some)}</div>'

    if len(lines) <= 3 * _ENDS:
        return block(head, *lines)
    middle = lines[_ENDS:-_ENDS]
    between = page.details(f"{len(middle)} timings between these", block(*middle))
    return block(head, *lines[:_ENDS]) + between + block(*lines[-_ENDS:])
