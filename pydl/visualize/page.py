"""A page: one self-contained HTML file, light or dark as the reader's system is."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape

from pydl.visualize.operators import PASSES, OperatorRow
from pydl.visualize.palette import DARK, LIGHT, Theme
from pydl.visualize.shares import Share


def _colours(theme: Theme) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in asdict(theme).items())


_STYLE = (
    f"""
:root {{ color-scheme: light dark; {_colours(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_colours(DARK)} }} }}
"""
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
  sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; letter-spacing: -.01em; }
p { margin: 0 0 .9rem; max-width: 46rem; }
.lead { font-size: 1.1rem; color: var(--faint); }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.4rem 1.5rem 1rem;
  margin-top: 1.25rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem;
  margin-top: 1.5rem; }
.tile { background: var(--paper); border: 1px solid var(--line); border-radius: 12px;
  padding: 1rem 1.2rem; }
.tile b { display: block; font-size: 1.75rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--faint); font-size: .9rem; }
.missed b { color: var(--loss); }
img { display: block; width: 100%; height: auto; }
.narrow { max-width: 31rem; margin: 0 auto; }
.scroll { overflow-x: auto; margin-bottom: .9rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--faint); white-space: nowrap; }
th, td { padding: .4rem 1.1rem .4rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
.n { text-align: right; white-space: nowrap; }
.win { color: var(--ours); font-weight: 600; } .lose { color: var(--loss); font-weight: 600; }
.even { color: var(--faint); font-weight: 600; }
.ok { color: var(--good); font-weight: 600; } .bad { color: var(--loss); font-weight: 700; }
code { font: .92em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin-bottom: .9rem; } summary { cursor: pointer; color: var(--faint); }
details .scroll { margin-top: .6rem; }
h2.part { font-size: 1.6rem; margin: 3rem 0 0; }
.gallery { display: grid; gap: 1rem; margin-bottom: .9rem; align-items: start; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); }
figure { margin: 0; } figcaption { font-size: .85rem; line-height: 1.35; color: var(--faint);
  margin-top: .3rem; } figcaption b { color: var(--ink); }
.gallery img { image-rendering: pixelated; }
.bars { display: grid; grid-template-columns: 13.5rem 15.5rem 1fr 3.4rem; column-gap: .8rem;
  align-items: center; font-size: .85rem; line-height: 1.5; margin-bottom: .6rem; }
.what { grid-column: 1; grid-row: span 2; padding: .45rem 0; line-height: 1.3; }
.what b { display: block; font-size: .95rem; } .what span, .who { color: var(--faint); }
.who { grid-column: 2; } .who b { font-weight: 400; color: var(--ink); }
.track { grid-column: 3; position: relative; height: .85rem; border-radius: 2px;
  background: linear-gradient(var(--faint), var(--faint)) var(--one) 0 / 1px 100% no-repeat; }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 2px; }
i.win { background: var(--ours); } i.lose { background: var(--loss); }
i.even { background: var(--faint); }
.ratio { grid-column: 4; text-align: right; font-variant-numeric: tabular-nums; }
.ticks { background: none; height: 1.2rem; color: var(--faint); }
.ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.key { font-size: .85rem; color: var(--faint); max-width: none; }
.key span { display: inline-block; margin-right: 1.3rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px;
  margin-right: .4rem; vertical-align: -.08rem; }
@media (max-width: 44rem) {
  main { padding: 1.5rem .8rem 3rem; } section { padding: 1.1rem 1rem .6rem; }
  h1 { font-size: 1.7rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: .7rem; } .tile { padding: .8rem .9rem; }
  .tile b { font-size: 1.4rem; }
  .bars { grid-template-columns: 1fr 3.4rem; }
  .what, .who { grid-column: 1 / -1; grid-row: auto; } .what { padding: .8rem 0 .1rem; }
  .track { grid-column: 1; } .ratio { grid-column: 2; } .minor { display: none; }
}
footer { color: var(--faint); font-size: .85rem; margin-top: 1.5rem; }
"""
)

Picture = tuple[bytes, bytes]  # the light and the dark PNG
Tile = tuple[str, str, bool]  # a figure, what it is, whether it meets its target


def picture(image: Picture, what: str, *, narrow: bool = False) -> str:
    """Both appearances of a plot; the browser shows the one that suits."""
    light, dark = map(_data_uri, image)
    kind = ' class="narrow"' if narrow else ""
    dark_one = f'<source srcset="{dark}" media="(prefers-color-scheme: dark)">'
    source = dark_one if dark != light else ""
    return f'<picture>{source}<img{kind} src="{light}" alt="{escape(what)}"></picture>'


def gallery(
    pictures: Sequence[tuple[Picture, str]], least: str = "6rem", *, fill: bool = False
) -> str:
    """Small pictures with their captions (HTML), as many side by side as there is room for.

    Args:
        pictures: with their captions.
        least: how wide each is at least, in CSS.
        fill: whether a few of them take all the room.
    """
    made = (
        f"<figure>{picture(image, re.sub('<[^>]*>', '', caption))}"
        f"<figcaption>{caption}</figcaption></figure>"
        for image, caption in pictures
    )
    fit = "auto-fit" if fill else "auto-fill"
    columns = f"repeat({fit},minmax(min({least},100%),1fr))"
    return f'<div class="gallery" style="grid-template-columns:{columns}">{"".join(made)}</div>'


def side_by_side(*pictures: str) -> str:
    """Pictures (HTML) beside each other, one under the other where there is no room."""
    return f'<div class="pair">{"".join(pictures)}</div>'


def _data_uri(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode()


def section(title: str, *parts: str) -> str:
    """A card of the page; ``parts`` are HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str) -> str:
    """``text`` is HTML, its lines broken anywhere."""
    return f"<p>{' '.join(text.split())}</p>"


def part(title: str) -> str:
    """The title over several cards."""
    return f'<h2 class="part">{escape(title)}</h2>'


def details(summary: str, content: str) -> str:
    """What a reader sees who asks for it; ``content`` is HTML."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """``rows`` are HTML; the columns ``numbers`` are flush right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="n">{cell}</{tag}>' if i in numbers else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", head)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def tiles(figures: Sequence[Tile]) -> str:
    """The figures a reader should take away."""
    made = (
        f'<div class="tile{"" if met else " missed"}"><b>{value}</b><span>{what}</span></div>'
        for value, what, met in figures
    )
    return f'<div class="tiles">{"".join(made)}</div>'


def checks_summary(rows: Sequence[OperatorRow]) -> str:
    """How many results are within their bounds, and how near the nearest comes to its."""
    checks = [one for row in rows for one in row.checks]
    within = sum(one.passed for one in checks)
    nearest = max(one.ours / one.bound for one in checks)
    return f"""<b>{within} of {len(checks)} results are within their bounds</b>; the nearest is at
        {100 * nearest:.0f} % of its."""


def checks_table(rows: Sequence[OperatorRow]) -> str:
    """Each operator's deviation from the float64 reference."""
    lines = []
    for row in rows:
        for one in row.checks:
            verdict = (
                '<span class="ok">within</span>'
                if one.passed
                else '<span class="bad">outside</span>'
            )
            what = one.result.replace("grad_", "gradient of ")
            figures = [
                f"{figure:.1e}" if figure else "0" for figure in (one.ours, one.theirs, one.bound)
            ]
            lines.append([escape(row.layer), what, *figures, verdict])
    return table(["layer", "result", "pydl", "PyTorch", "bound", ""], lines, numbers=(2, 3, 4))


def speed_table(rows: Sequence[OperatorRow]) -> str:
    """Each operator's median times."""
    lines = []
    for row in rows:
        shape = "&times;".join(map(str, row.input))
        for kind, name in PASSES.items():
            times, ratio = row.times[kind], row.ratio(kind)
            micros = [f"{times[who].median * 1e6:,.0f}" for who in ("ours", "theirs")]
            speed = f'<span class="{row.verdict(kind)}">{ratio:.2f}&times;</span>'
            told = [escape(row.layer), name, shape, row.backends[kind]]
            lines.append([*told, *micros, speed])
    head = ["layer", "pass", "input", "backend", "pydl, µs", "PyTorch, µs", "ratio"]
    return table(head, lines, numbers=(4, 5, 6))


def where_time_goes(rows: Sequence[Share], of: str) -> str:
    """A card: who computes the layers of a network, and what part of a run's time they take.

    Args:
        rows: of the run.
        of: what the network ran on, in words.
    """
    lines = [
        [f"<code>{one.what}</code>", str(one.count), _who(one.backend), f"{100 * one.part:.0f} %"]
        for one in rows
    ]
    return section(
        "Who computes, and where the time goes",
        paragraph(f"""
            One run of the network on {of}, in inference, layer by layer. Dense convolution on a CPU
            is PyTorch's own, so what is gained or lost here is in the rest."""),
        table(["layers", "how many", "computed by", "of the time"], lines, numbers=(1, 3)),
    )


def _who(backend: str) -> str:
    if backend == "torch.nn":
        return "PyTorch, torch.nn"
    return "PyTorch, called by pydl" if backend == "aten" else f"pydl (<code>{backend}</code>)"


def page(
    title: str, lead: str, parts: Sequence[str], versions: Mapping[str, str], *, style: str = ""
) -> str:
    """The whole document; ``lead`` and ``parts`` are HTML, ``style`` is CSS of this page alone."""
    said = ", ".join(f"{escape(key)} {escape(value)}" for key, value in versions.items() if value)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{_STYLE}{style}</style></head>
<body><main><h1>{escape(title)}</h1><p class="lead">{" ".join(lead.split())}</p>
{"".join(parts)}
<footer>Measured with {said}.</footer></main></body></html>
"""
